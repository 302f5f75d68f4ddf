"""Small tokenizers, trained here, in whose vocabularies names and periods merge in awkward ways."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from c2s_jax.text import HuggingFaceTokenizer, SentencePieceTokenizer
from tests.text.neox import train_neox

SPECIAL = {
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "pad_piece": "<pad>",
    "eos_piece": "<eos>",
    "bos_piece": "<bos>",
    "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁"],
}
FAITHFUL = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
}


def make_gene_names(n: int = 400) -> list[str]:
    """Names like HLA-DRB1, RP11-34.2, MT-CO3, H2-T24(PS): shared stems, digits, hyphens, periods, brackets."""
    rng = np.random.default_rng(0)
    stems = ["HLA-DR", "RP11-", "MT-CO", "IGH", "CD", "TRA.", "S100A", "LINC0", "X.Y"]
    letters = np.array(list("ABCDE0123456789"))
    names = {stem + "".join(rng.choice(letters, rng.integers(1, 5))) for stem in rng.choice(stems, 2 * n)}
    return sorted(names)[: n - n // 8] + [f"{name}(PS)" for name in sorted(names)[: n // 8]]


def train_model(path: Path, sentences: list[str], **options) -> Path:
    model = io.BytesIO()
    settings = {"model_type": "bpe", "vocab_size": 700, "num_threads": 1, "minloglevel": 2} | SPECIAL | FAITHFUL
    settings |= {"split_by_unicode_script": False, "split_by_number": False, "character_coverage": 1.0}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences), model_writer=model, **(settings | options)
    )
    path.write_bytes(model.getvalue())
    return path


def make_sentences(names: list[str]) -> list[str]:
    """Sentences of genes that end with a period, so that last letters and period merge into one piece."""
    rng = np.random.default_rng(1)
    sentences = [" ".join(rng.choice(names, 8)) + "." for _ in range(300)]
    words = ["Genes: of this cell ... the type is (B) a next Next Cell 1: 2: cells."] * 20
    return [f" {s}" for s in sentences] + sentences + words + [f" {name}." for name in names for _ in range(3)]


@pytest.fixture(scope="session")
def gene_names() -> list[str]:
    return make_gene_names()


@pytest.fixture(scope="session")
def of_kind(tmp_path_factory, gene_names):
    """Function that gives the tokenizer of a kind: "bpe" or "unigram" (SentencePiece), "neox" (byte-level BPE)."""

    @cache
    def make(kind: str) -> SentencePieceTokenizer | HuggingFaceTokenizer:
        folder, sentences = tmp_path_factory.mktemp(kind), make_sentences(gene_names)
        if kind == "neox":
            return HuggingFaceTokenizer(train_neox(folder, sentences))
        return SentencePieceTokenizer(train_model(folder / "tokenizer.model", sentences, model_type=kind))

    return make


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer(request, of_kind) -> SentencePieceTokenizer:
    return of_kind(request.param)


@pytest.fixture(scope="session")
def neox(of_kind) -> HuggingFaceTokenizer:
    return of_kind("neox")


@pytest.fixture
def train(tmp_path, gene_names):
    """Function that trains a model with other options and returns its path."""

    def make(sentences: list[str] | None = None, name: str = "x.model", **options) -> Path:
        return train_model(tmp_path / name, sentences or make_sentences(gene_names), **options)

    return make
