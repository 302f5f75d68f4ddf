"""Passes of the model a gene when gene names are drafted: a replay of real sentences.

    C2S_DATA=FOLDER python -m benchmarks.draft_replay [--genes=200] [--held-out=638]

Prints JSON. Frequencies come from the other cells of pbmc3k; each held-out sentence is written as it stands, with
Gemma-2's tokens: a pass yields the drafted tokens up to the first that is not the sentence's, and one more. What is
drafted is what ``GeneDrafts.propose`` gives. No model is involved: one that knows the sentence by heart would take
exactly these passes.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu"}

import anndata
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells import cell_sentences
from c2s_jax.generation import GeneDrafts, GeneGrammar
from c2s_jax.generation.decoding import Vocabulary
from c2s_jax.generation.drafts import Followed
from c2s_jax.text import GeneTokenTable, load_tokenizer

WIDTHS = (2, 4, 6)
ROWS = 64


def passes(drafts: GeneDrafts, tokens: NDArray[np.int32], lengths: NDArray[np.int32]) -> int:
    """Passes that write these sentences [C, T], the one over the prompt included."""

    @jax.jit
    def replay(drafts: GeneDrafts, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        choices = Followed(drafts, Vocabulary())
        at_end = jnp.pad(tokens, ((0, 0), (0, drafts.width + 1)))
        rows = jnp.arange(len(tokens))

        def one(carry: Any) -> Any:
            walk, at, count = carry
            going = at < lengths
            draft, live = drafts.propose(walk), going
            for i in range(drafts.width + 1):
                token = at_end[rows, at]
                _, walk = choices.take(walk, token, live)
                at = at + live
                if i < drafts.width:
                    live = live & (token == draft[:, i]) & (at < lengths)
            return walk, at, count + going

        first = choices.take(choices.start(len(tokens)), tokens[:, 0], jnp.ones(len(tokens), bool))[1]
        start = (first, jnp.ones_like(lengths), jnp.ones_like(lengths))
        return jax.lax.while_loop(lambda c: (c[1] < lengths).any(), one, start)[2]

    return sum(
        int(replay(drafts, tokens[i : i + ROWS], lengths[i : i + ROWS]).sum()) for i in range(0, len(tokens), ROWS)
    )


def main() -> None:
    """Run the replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=200, help="genes a sentence")
    parser.add_argument("--held-out", type=int, default=638, help="cells")
    arguments = parser.parse_args()
    data = Path(os.environ["C2S_DATA"])
    cells = anndata.read_h5ad(data / "pbmc3k_full_labelled" / "pbmc3k_2638_full.h5ad")
    sentences = [s.split() for s in cell_sentences(cells, top_k=arguments.genes)]
    names = sorted({gene for s in sentences for gene in s})
    number = {gene: i for i, gene in enumerate(names)}
    order = np.random.default_rng(0).permutation(len(sentences))
    held_out, others = order[: arguments.held_out], order[arguments.held_out :]
    frequencies = np.bincount([number[g] for i in others for g in sentences[i]], minlength=len(names))
    tokenizer = load_tokenizer(data / "tokenizer_gemma2")
    table = GeneTokenTable.build(tokenizer, names)
    rows = [table.encode([number[g] for g in sentences[i]]) for i in held_out]
    lengths = np.array([len(r) for r in rows], np.int32)
    tokens = np.zeros((len(rows), int(lengths.max())), np.int32)
    for row, ids in zip(tokens, rows):
        row[: len(ids)] = ids
    genes = sum(len(sentences[i]) for i in held_out)
    grammar, found = GeneGrammar.build(table, tokenizer.eos_id), {}
    for width in WIDTHS:
        drafts = GeneDrafts.build(table, grammar, frequencies, width=width, vocab_size=tokenizer.vocab_size)
        found[width] = round(passes(drafts, tokens, lengths) / genes, 3)
        print(width, found[width], file=sys.stderr, flush=True)
    result = {
        "benchmark": "draft_replay",
        "sentences": len(rows),
        "genes": genes,
        "passes_per_gene_without": round(float(lengths.sum()) / genes, 3),
        "passes_per_gene_by_width": found,
        "sizes": vars(arguments),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
