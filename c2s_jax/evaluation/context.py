"""What every suite needs: the model, the corpus and the way between them."""

import dataclasses
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from tqdm import tqdm

from c2s_jax.data import CellSource, Corpus, Formatter, MixtureTask, Request, request
from c2s_jax.data.corpus_format import FIELDS
from c2s_jax.data.permute import keys
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.evaluation.prompts import fitted
from c2s_jax.generation import GeneGrammar, Sampler, Samples, Sampling
from c2s_jax.tasks import Template, load_templates

PROMPT_TOKENS = 32  # left for the text of a prompt, where a sentence may take all else


def progress(total: int, what: str, unit: str) -> tqdm:
    """A bar named ``what``, on the first process."""
    return tqdm(total=total, desc=what, unit=unit, mininterval=0.5, disable=bool(jax.process_index()))


@dataclasses.dataclass(frozen=True)
class Context:
    """A model on its mesh, with the corpus and formatter it was trained with.

    Attributes
    ----------
    max_genes
        Most genes of a prompt or a generated sentence.
    seq_len
        Most tokens of a prompt with its response.
    tasks
        Settings of the tasks of the run's mixture.
    exports
        Folder for files that other tools read.
    constrain
        Cells are generated under ``grammar``; otherwise as the model writes them.
    """

    graphdef: nnx.GraphDef
    params: nnx.State
    mesh: Mesh
    corpus: Corpus
    formatter: Formatter
    sampler: Sampler
    max_genes: int
    seq_len: int = 8192
    tasks: Mapping[str, MixtureTask] = dataclasses.field(default_factory=dict)
    exports: str = "exports"
    constrain: bool = False

    def ask(
        self,
        requests: Sequence[Request],
        sentences: "Sentences",
        *,
        what: str,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        grammar: GeneGrammar | None = None,
    ) -> Samples:
        """Answers to requests, each with its gene list; shows a bar named ``what``.

        Gene lists are cut so that a prompt and its answer have ``seq_len`` tokens. Where texts alone leave less than
        ``max_new_tokens``, an answer has what they leave.

        Raises
        ------
        ValueError
            If they leave nothing.
        """
        rows = fitted(self.formatter, requests, sentences.genes, sentences.indptr, self.seq_len - max_new_tokens)
        longest = max(map(len, rows))
        if longest >= self.seq_len:
            raise ValueError(
                f"evaluation, {what}: a prompt takes {longest:,} tokens with one gene, which leaves no room for an "
                f"answer; raise data.seq_len={self.seq_len}"
            )
        room = min(max_new_tokens, self.seq_len - longest)
        return self.answer(rows, what=what, max_new_tokens=room, sampling=sampling, seed=seed, grammar=grammar)

    def answer(
        self,
        rows: Sequence[NDArray[np.int32]],
        *,
        what: str,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        grammar: GeneGrammar | None = None,
    ) -> Samples:
        """Answers to prompts that are tokens already; shows a bar named ``what``."""
        with progress(len(rows), what, "prompt") as bar:
            return self.sampler(
                self.params,
                rows,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                seed=seed,
                grammar=grammar,
                progress=bar.update,
            )

    @cached_property
    def grammar(self) -> GeneGrammar | None:
        """Of generated cells: genes of the corpus, each once, at most ``longest_sentence``."""
        if not self.constrain:
            return None
        end = self.formatter.tokenizer.eos_id
        return GeneGrammar.build(self.formatter.table, end, at_most=self.longest_sentence())

    def longest_sentence(self, lists: int = 1) -> int:
        """Most genes that a generated sentence may have: those of the longest training cell, within ``most_genes``."""
        return min(int(self.corpus.cells("train").n_genes.max()), self.most_genes(lists))

    def most_genes(self, lists: int = 1) -> int:
        """Most genes of a generated sentence and of those that it is compared with.

        ``max_genes``, or what ``seq_len`` holds when ``lists`` of them stand in a prompt and its answer together.
        """
        room = (self.seq_len - PROMPT_TOKENS) // lists
        return min(self.max_genes, max(1, bisect_right(range(1, self.max_genes + 1), room, key=self.tokens_of)))

    def tokens_of(self, n_genes: int) -> int:
        """Most tokens that ``n_genes`` gene names, a period and the end token can take, rounded up to 32.

        Sized by the mean length of a name and three standard deviations of their sum, so that the few long names
        of a vocabulary do not stretch every cache.
        """
        lengths = self.formatter.table.lengths.astype(np.float64)
        need = n_genes * lengths.mean() + 3 * np.sqrt(n_genes) * lengths.std() + 2
        return int(-(-need // 32) * 32)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Gene lists of several cells, ragged."""

    genes: NDArray[np.int32]
    indptr: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def repeat(self, times: int) -> "Sentences":
        """Each cell ``times`` times in a row."""
        return self.select(np.repeat(np.arange(len(self)), times))

    def select(self, rows: NDArray[np.int64]) -> "Sentences":
        """Some cells, in the order of ``rows``."""
        lengths = np.diff(self.indptr)[rows]
        return Sentences(self.genes[positions(self.indptr[:-1][rows], lengths)], offsets(lengths))

    def shuffled(self, seed: int) -> "Sentences":
        """Each cell's genes in random order."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        return Sentences.of([rng.permutation(genes) for genes in self.lists()])

    def lists(self) -> list[NDArray[np.int32]]:
        """One array a cell."""
        return np.split(self.genes, self.indptr[1:-1])

    @staticmethod
    def of(lists: Sequence[NDArray[np.int32]]) -> "Sentences":
        """From one array a cell."""
        lengths = np.array([len(x) for x in lists], np.int64)
        return Sentences(np.concatenate([np.empty(0, np.int32), *lists]).astype(np.int32), offsets(lengths))


def templates_for(
    task: str, prompts: str, cells: CellSource, indices: NDArray[np.int64]
) -> tuple[list[Template], dict[str, NDArray]]:
    """Templates of a task whose fields all of some cells have, and these fields of the cells, str [C].

    Raises
    ------
    ValueError
        If every template needs a field that some cell lacks.
    """
    found: list[Template] = []
    columns: dict[str, NDArray] = {}
    for template in load_templates(task, prompts):
        own = {name: cells.fields(name)[indices] for name in sorted(template.fields & set(FIELDS))}
        if all((column != "").all() for column in own.values()):
            found.append(template)
            columns |= own
    if not found:
        raise ValueError(f"every template of {task} (prompts={prompts!r}) needs a field that some cells lack")
    return found, columns


def requests_in_turn(
    templates: Sequence[Template], columns: Mapping[str, NDArray], n_genes: NDArray[np.integer]
) -> list[Request]:
    """One request a row of ``columns``, with so many genes; templates are taken in turn."""
    return [
        request(templates[i % len(templates)], {name: str(column[i]) for name, column in columns.items()}, int(n))
        for i, n in enumerate(n_genes)
    ]


def some_of(rows: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most ``most`` of some rising rows, rising; all where there are no more, or ``most`` is None.

    Which ones hangs on their numbers alone, so runs of any seed are measured on the same cells. The first ones would be
    of few data sets and types: a corpus holds one after the other.
    """
    if most is None or len(rows) <= most:
        return rows
    return np.sort(rows[np.argsort(keys(rows), kind="stable")[:most]])


def sentences_of(cells: CellSource, indices: NDArray[np.int64], max_genes: int) -> Sentences:
    """Stored sentences of some cells, cut to ``max_genes``."""
    block = cells.take(indices)
    kept = np.minimum(np.diff(block.indptr), max_genes)
    return Sentences(block.genes[positions(block.indptr[:-1], kept)], offsets(kept))


def dense_expression(cells: CellSource, indices: NDArray[np.int64], n_genes: int) -> NDArray[np.float32]:
    """Stored log10 expression [C, G] of some cells."""
    return cells.take(indices).matrix(n_genes).toarray()


def principal(expression: NDArray, components: int) -> PCA:
    """The first principal components of expression [C, G]."""
    return PCA(min(components, *expression.shape), random_state=0).fit(expression)


def ranked(expression: NDArray, max_genes: int) -> Sentences:
    """Sentences of expression [C, G]: genes above 0 by falling expression, the most expressed ``max_genes``."""
    order = np.argsort(-expression, axis=1, kind="stable")[:, :max_genes].astype(np.int32)
    return Sentences.of([genes[profile[genes] > 0] for genes, profile in zip(order, expression)])
