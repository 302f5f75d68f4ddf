"""The strongest interactions of gene lists, found place by place until there are enough."""

import numpy as np

from c2s_jax.jit import compiled

ABSENT = np.iinfo(np.int64).max


@compiled
def strongest(
    genes: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    bounds: np.ndarray,
    members: np.ndarray,
    member_starts: np.ndarray,
    of_gene: np.ndarray,
    gene_starts: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and ranks of at most `most` interactions of each example, int64 [N, most].

    Where there are fewer, the number is that of all interactions, and the rank `ABSENT`. Example i has the lists
    ``bounds[i]:bounds[i + 1]``, each with its start and length in `genes`. `members` are the genes of each interaction,
    `of_gene` the interactions of each gene, ragged.
    """
    n, known = len(bounds) - 1, len(member_starts) - 1
    numbers, ranks = np.full((n, most), known, np.int64), np.full((n, most), ABSENT, np.int64)
    seen = np.full(len(gene_starts) - 1, -1, np.int64)  # the last example that showed each gene
    complete = np.empty(known, np.int64)
    for example in range(n):
        first, last = bounds[example], bounds[example + 1]
        longest = lengths[first:last].max() if first < last else 0
        told = place = 0
        while told < most and place < longest:
            found = 0
            for i in range(first, last):
                if place >= lengths[i]:
                    continue
                gene = genes[starts[i] + place]
                if seen[gene] == example:
                    continue
                seen[gene] = example
                for interaction in of_gene[gene_starts[gene] : gene_starts[gene + 1]]:
                    missing = 0
                    for member in members[member_starts[interaction] : member_starts[interaction + 1]]:
                        missing += seen[member] != example
                    if missing == 0:
                        complete[found] = interaction
                        found += 1
            taken = min(found, most - told)
            numbers[example, told : told + taken] = np.sort(complete[:found])[:taken]
            ranks[example, told : told + taken] = place
            told += taken
            place += 1
    return numbers, ranks
