"""Cells held in memory, and a tokenizer in whose vocabulary names, spaces and periods merge in awkward ways."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from c2s_jax.cells import GeneVocabulary, RankExpression
from c2s_jax.data import Formatter
from c2s_jax.data.corpus import CellBlock, GeneSet, Interaction, Question
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.tasks import TASKS, load_templates
from c2s_jax.text import GeneTokenTable, SentencePieceTokenizer

LABELS = ("B cell", "CD4+/CD25 T Reg", "Dendritic")


class CellsInMemory:
    """What the stream asks of ``CellSource``."""

    def __init__(
        self,
        genes: list[np.ndarray],
        expression: list[np.ndarray],
        fields: Mapping[str, Sequence[str]],
        *,
        dataset_ids: Sequence[int] | None = None,
        neighbours: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.lists, self.values, self.neighbours = genes, expression, neighbours
        self._fields = {name: np.array(values, dtype=np.str_) for name, values in fields.items()}
        self.dataset_ids = np.zeros(len(genes), np.int32) if dataset_ids is None else np.array(dataset_ids, np.int32)
        samples = zip(self.dataset_ids.tolist(), self.fields("donor").tolist(), self.fields("tissue").tolist())
        number: dict[tuple, int] = {}
        self.groups = np.array([number.setdefault(sample, len(number)) for sample in samples], np.int32)

    def __len__(self) -> int:
        return len(self.lists)

    def fields(self, name: str) -> np.ndarray:
        return self._fields.get(name, np.full(len(self), ""))

    def cell_ids(self, indices: np.ndarray) -> np.ndarray:
        return np.array([f"cell {i}" for i in indices])

    def field_codes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values, codes = np.unique(self.fields(name), return_inverse=True)
        return codes.astype(np.int32), values

    @property
    def n_genes(self) -> np.ndarray:
        return np.array([len(x) for x in self.lists], np.int32)

    def take(self, indices: np.ndarray) -> CellBlock:
        lengths = np.array([len(x) for x in self.lists])
        indptr = offsets(lengths)
        where = positions(indptr[:-1][indices], lengths[indices])
        genes, values = np.concatenate(self.lists), np.concatenate(self.values)
        return CellBlock(offsets(lengths[indices]), genes[where].astype(np.int32), values[where].astype(np.float16))


@dataclasses.dataclass
class CorpusInMemory:
    """What the stream asks of ``Corpus``; all splits are the same cells."""

    source: CellsInMemory
    names: list[str]
    datasets: list[dict] = dataclasses.field(default_factory=lambda: [{"name": "a"}])
    gene_sets: list[GeneSet] = dataclasses.field(default_factory=list)
    questions: list[Question] = dataclasses.field(default_factory=list)
    interactions: list[Interaction] = dataclasses.field(default_factory=list)

    def cells(self, split: str) -> CellsInMemory:
        return self.source

    @property
    def rank_expressions(self) -> list[RankExpression]:
        return [RankExpression(**d["rank_expression"]) for d in self.datasets]

    @property
    def genes(self) -> GeneVocabulary:
        return GeneVocabulary(self.names)


@pytest.fixture(scope="session")
def gene_names() -> list[str]:
    """Names of several pieces each, some with periods."""
    rng = np.random.default_rng(0)
    letters = np.array(list("ABCDE0123"))
    stems = ["HLA-DR", "RP11-", "MT-CO", "CD", "TRA.", "X.Y"]
    return sorted({s + "".join(rng.choice(letters, rng.integers(1, 4))) for s in rng.choice(stems, 300)})[:150]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, gene_names) -> SentencePieceTokenizer:
    rng = np.random.default_rng(1)
    prompts = [t.model_input.replace("{", "").replace("}", "") for task in TASKS for t in load_templates(task)]
    sentences = [" " + " ".join(rng.choice(gene_names, 8)) + "." for _ in range(200)]
    sentences += [f" {name}." for name in gene_names for _ in range(3)] + prompts + list(LABELS) * 3
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["\n", "▁▁"],
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return SentencePieceTokenizer(path)


@pytest.fixture(scope="session")
def formatter(tokenizer, gene_names) -> Formatter:
    table = GeneTokenTable.build(tokenizer, gene_names)
    assert table.lengths.max() > 2
    return Formatter(tokenizer, table)


@pytest.fixture(scope="session")
def make_cells(gene_names):
    """Function that makes cells: distinct genes by falling expression, with ties; every fifth has no label."""

    def make(n: int = 40, lengths: tuple[int, int] = (3, 30), seed: int = 0, unlabelled: int = 5) -> CellsInMemory:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(*lengths, n, endpoint=True)
        genes = [rng.permutation(len(gene_names))[:k].astype(np.int32) for k in sizes]
        expression = [-np.sort(-np.round(rng.uniform(0, 3, k), 1)).astype(np.float16) for k in sizes]
        labels = [str(rng.choice(LABELS)) if not unlabelled or i % unlabelled else "" for i in range(n)]
        return CellsInMemory(genes, expression, {"organism": ["human"] * n, "cell_type": labels})

    return make


@pytest.fixture(scope="session")
def corpus_of(gene_names):
    """Function that makes a corpus of cells in memory."""

    def make(cells: CellsInMemory, **parts) -> CorpusInMemory:
        return CorpusInMemory(cells, gene_names, **parts)

    return make


TYPES = ("B cell", "CD4-positive, alpha-beta T cell", "monocyte", "")
ATLAS, SCREEN, BULK = 0, 1, 2
RADIUS = 1.0


@pytest.fixture(scope="session")
def rich(gene_names) -> CorpusInMemory:
    """A corpus that every task can be asked about.

    Data set 0, "atlas": 200 cells in a plane, of four donors and two tissues. Data set 1, "screen": 80 cells, treated
    or not. Data set 2: the atlas summed up by donor and cell type.
    """
    rng = np.random.default_rng(5)
    n_atlas, n_screen = 200, 80
    n = n_atlas + n_screen
    atlas = np.arange(n) < n_atlas
    fields = {
        "organism": ["human"] * n,
        "donor": rng.choice(["d0", "d1", "d2", "d3"], n).tolist(),
        "tissue": rng.choice(["blood", "lung"], n).tolist(),
        "cell_type": rng.choice(TYPES, n, p=[0.4, 0.3, 0.2, 0.1]).tolist(),
        "niche": np.where(atlas, rng.choice(["core", "rim", "", "edge"], n), "").tolist(),
        "perturbation": np.where(atlas, "", rng.choice(["control", "IFN-beta", "drug"], n, p=[0.3, 0.4, 0.3])).tolist(),
        "time": np.where(atlas, "", rng.choice(["6 h", "24 h", ""], n)).tolist(),
        "batch": np.where(atlas, "", rng.choice(["b1", "b2"], n)).tolist(),
        "disease": [""] * n,
    }
    groups = sorted({(d, t) for d, t in zip(fields["donor"][:n_atlas], fields["cell_type"][:n_atlas]) if t})
    for name, values in fields.items():
        values += {"donor": [d for d, _ in groups], "cell_type": [t for _, t in groups]}.get(name, [""] * len(groups))
    fields["organism"][n:] = ["human"] * len(groups)
    total = n + len(groups)
    sizes = rng.integers(4, 30, total)
    genes = [rng.permutation(len(gene_names))[:k].astype(np.int32) for k in sizes]
    expression = [-np.sort(-np.round(rng.uniform(0, 3, k), 1)).astype(np.float16) for k in sizes]
    place = rng.uniform(0, 8, (n_atlas, 2))
    near = np.linalg.norm(place[:, None] - place[None], axis=-1) <= RADIUS
    np.fill_diagonal(near, False)
    indptr = offsets(np.concatenate([near.sum(1), np.zeros(total - n_atlas, np.int64)]))
    cells = CellsInMemory(
        genes,
        expression,
        fields,
        dataset_ids=[ATLAS] * n_atlas + [SCREEN] * n_screen + [BULK] * len(groups),
        neighbours=(indptr, np.nonzero(near)[1].astype(np.int32)),
    )
    texts = {"B cell": ["B cells of the blood.", "Cells that make antibodies."], "monocyte": ["Classical monocytes."]}
    sources, splits = ["hallmark"] * 6 + ["pathway"] * 3, ["test" if i % 4 == 3 else "train" for i in range(9)]
    return CorpusInMemory(
        cells,
        gene_names,
        datasets=[
            {"name": "atlas", "abstracts": ["We looked at blood.", "Blood and lung were profiled."], "control": ""}
            | {"captions": texts, "caption_field": "cell_type"},
            {"name": "screen", "abstracts": [], "captions": {}, "caption_field": "cell_type", "control": "control"},
            {"name": "sums", "abstracts": [], "captions": {}, "caption_field": "cell_type", "control": ""}
            | {"provenance": {"sums_of": "atlas"}},
        ],
        gene_sets=[
            GeneSet(f"set {i} of genes", "", source, rng.permutation(len(gene_names))[:8].astype(np.int32), split)
            for i, (source, split) in enumerate(zip(sources, splits))
        ],
        questions=[
            Question(ATLAS, "Which tissue?", "Blood, mostly.", "train"),
            Question(SCREEN, "What was done?", "A screen", "train"),
            Question(SCREEN, "Not for training?", "No", "test"),
        ],
        interactions=[
            Interaction("db", kind, np.array(a, np.int32), np.array(b, np.int32))
            for kind, a, b in [("ligand-receptor", [i], [i + 1, i + 2]) for i in range(100)] + [("physical", [3], [9])]
        ],
    )
