import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from c2s_jax.data.corpus import Corpus
from c2s_jax.text import GeneTokenTable, SentencePieceTokenizer
from data_pipeline import tokenizer as training
from data_pipeline.tokenizer import train_tokenizer
from data_pipeline.writer import CorpusWriteError

TEXTS = [
    "The {num_genes} genes most expressed in this {organism} cell, highest first:\n{cell_sentence}",
    "What type of cell is it?",
    "Name the cell type, in a word or two.",
    "{cell_type}.",
]


@pytest.fixture(scope="module")
def trained(pbmc_corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    report = train_tokenizer(pbmc_corpus, path, texts=TEXTS)
    return SentencePieceTokenizer(path), report


def test_genes_words_and_labels_are_single_pieces(trained, pbmc_corpus):
    tokenizer, report = trained
    corpus = Corpus(pbmc_corpus)
    lengths = [len(tokenizer.encode(f" {name}")) for name in corpus.genes.names]
    assert np.mean(np.array(lengths) == 1) == report.genes_single >= 0.95
    for word in " genes", " most", " first", " expressed", " human", " Monocyte", " CD4+/CD45RA+/CD25-":
        assert len(tokenizer.encode(word)) <= 2, word
    label = tokenizer.encode(" CD19+ B.")
    assert [tokenizer.piece(t) for t in label][-2:] == ["▁B", "."]


def test_vocabulary_is_small(trained):
    tokenizer, report = trained
    assert tokenizer.vocab_size == report.vocab_size < 1500
    bytes_and_specials = 256 + 4 + 9
    assert tokenizer.vocab_size - bytes_and_specials - 765 < 250


def test_layout_is_gemmas(trained):
    tokenizer, _ = trained
    assert [tokenizer.piece(i) for i in range(5)] == ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    assert tokenizer.stop_ids == (1, tokenizer.encode("<end_of_turn>")[0])
    assert [tokenizer.piece(t) for t in tokenizer.encode("a\n\nb")] == ["a", "\n\n", "b"]
    assert tokenizer.decode(tokenizer.encode("Ünicode 🧬\t x  y\n")) == "Ünicode 🧬\t x  y\n"


def test_no_piece_is_a_phrase_or_ends_in_punctuation(trained):
    tokenizer, _ = trained
    for piece in map(tokenizer.piece, range(tokenizer.vocab_size)):
        assert "▁" not in piece[1:] or set(piece) == {"▁"}, piece
        assert not re.fullmatch(r".*\w[.:,]", piece), piece


def test_gene_table_is_exact_with_it(trained, pbmc_corpus):
    tokenizer, _ = trained
    names = Corpus(pbmc_corpus).genes.names
    table = GeneTokenTable.build(tokenizer, names)
    rng = np.random.default_rng(0)
    for _ in range(200):
        genes = rng.permutation(len(names))[:300]
        text = " " + " ".join(names[g] for g in genes) + "."
        assert table.encode(genes, "space", "period").tolist() == tokenizer.encode(text)


def test_report_is_written_and_says_the_truth(trained):
    tokenizer, report = trained
    stored = json.loads(tokenizer.path.with_suffix(".report.json").read_text())
    assert stored["fingerprint"] == tokenizer.fingerprint == report.fingerprint
    assert stored["genes"] == 765
    assert sorted(p.name for p in tokenizer.path.parent.iterdir()) == ["tokenizer.model", "tokenizer.report.json"]


def test_same_corpus_same_model_also_in_another_process(trained, pbmc_corpus, tmp_path):
    tokenizer, _ = trained
    train_tokenizer(pbmc_corpus, tmp_path / "again.model", texts=TEXTS)
    assert (tmp_path / "again.model").read_bytes() == tokenizer.path.read_bytes()
    script = "import sys; from data_pipeline.tokenizer import train_tokenizer as train\n"
    script += "train(*sys.argv[1:3], texts=sys.argv[3:])"
    command = [sys.executable, "-c", script, str(pbmc_corpus), str(tmp_path / "other.model"), *TEXTS]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (tmp_path / "other.model").read_bytes() == tokenizer.path.read_bytes()


def test_only_train_cells_and_given_texts_are_looked_at(pbmc_corpus, tmp_path, monkeypatch):
    read = []
    original = Corpus.cells
    monkeypatch.setattr(Corpus, "cells", lambda self, split: read.append(split) or original(self, split))
    train_tokenizer(pbmc_corpus, tmp_path / "x.model", vocab_size=800)
    assert set(read) == {"train"}


def test_fewer_gene_pieces_on_request(pbmc_corpus, tmp_path, trained):
    report = train_tokenizer(pbmc_corpus, tmp_path / "x.model", texts=TEXTS, gene_share=0.9)
    assert 0.9 <= report.genes_single < 1
    assert report.vocab_size < trained[1].vocab_size


def test_byte_pairs_need_more_pieces(pbmc_corpus, tmp_path, trained):
    report = train_tokenizer(pbmc_corpus, tmp_path / "x.model", texts=TEXTS, model_type="bpe")
    assert report.genes_single == 1
    assert report.vocab_size > 1.5 * trained[1].vocab_size


@pytest.mark.parametrize("size", [100, 50_000])
def test_vocabulary_size_that_cannot_be(pbmc_corpus, tmp_path, size):
    with pytest.raises(ValueError, match=f"no tokenizer with vocab_size={size}: "):
        train_tokenizer(pbmc_corpus, tmp_path / "x.model", vocab_size=size)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_of_model(pbmc_corpus, tmp_path):
    with pytest.raises(ValueError, match="model_type='word'"):
        train_tokenizer(pbmc_corpus, tmp_path / "x.model", model_type="word")


def test_earlier_model_survives_a_failure(pbmc_corpus, tmp_path, monkeypatch):
    path = tmp_path / "x.model"
    path.write_text("earlier")

    def fail(*args) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CorpusWriteError, match=r"could not write .*x\.model: .*No space left"):
        train_tokenizer(pbmc_corpus, path, vocab_size=800)
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["x.model"]


def test_command_line(pbmc_corpus, tmp_path):
    command = [sys.executable, "-m", "data_pipeline.tokenizer", f"--corpus={pbmc_corpus}"]
    done = subprocess.run([*command, f"--output={tmp_path / 'x.model'}"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["genes_single"] >= 0.95
    assert report["words"] > 50  # the project's own templates
    missing = [*command[:-1], "--corpus=nowhere", f"--output={tmp_path / 'y.model'}"]
    done = subprocess.run(missing, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no corpus at nowhere")


def test_words_keep_their_space_and_lose_fields_and_punctuation():
    words = training._word_counts(["Cell type: {cell_type}.", "CD4+/CD25 T Reg."])
    assert set(words) == {"Cell", " Cell", " type", ":", ".", "CD4+/CD25", " CD4+/CD25", " T", " Reg"}
