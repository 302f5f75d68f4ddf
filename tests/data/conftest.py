"""Cells held in memory, and a tokenizer in whose vocabulary names, spaces and periods merge in awkward ways."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from c2s_jax.data import Formatter
from c2s_jax.data.corpus import CellBlock
from c2s_jax.data.ragged import offsets, positions
from c2s_jax.tasks import TASKS, load_templates
from c2s_jax.text import GeneTokenTable, SentencePieceTokenizer

LABELS = ("B cell", "CD4+/CD25 T Reg", "Dendritic")


class CellsInMemory:
    """What the stream asks of ``CellSource``."""

    def __init__(self, genes: list[np.ndarray], expression: list[np.ndarray], fields: Mapping[str, list[str]]):
        self.lists, self.values = genes, expression
        self._fields = {name: np.array(values) for name, values in fields.items()}

    def __len__(self) -> int:
        return len(self.lists)

    def fields(self, name: str) -> np.ndarray:
        return self._fields.get(name, np.full(len(self), ""))

    def take(self, indices: np.ndarray) -> CellBlock:
        lengths = np.array([len(x) for x in self.lists])
        indptr = offsets(lengths)
        where = positions(indptr[:-1][indices], lengths[indices])
        genes, values = np.concatenate(self.lists), np.concatenate(self.values)
        return CellBlock(offsets(lengths[indices]), genes[where].astype(np.int32), values[where].astype(np.float16))


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
