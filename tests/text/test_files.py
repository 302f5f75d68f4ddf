"""Folders: which file is read, and copies that transformers opens."""

import json
import shutil
import sys

import pytest
import sentencepiece
from tokenizers import models

from c2s_jax.text import (
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    copy_tokenizer,
    load_tokenizer,
    sentence_piece_json,
)
from tests.text.conftest import make_sentences
from tests.text.neox import rewrite

# No run of spaces that a unigram model can cut in two equally good ways.
TEXTS = [
    "",
    " ",
    " CD3D CD4.",
    "a  b\n\nc \n d",
    "Zell-Typ: ü™🧬",
    "\tx\n",
    "Cell 1:\nHLA-DRA .",
    "<mask>a<end_of_turn>\n",
]


@pytest.fixture
def open_with_transformers():
    """Function that opens a folder as other programs would, beside a model's configuration."""
    transformers = pytest.importorskip("transformers", reason="the program that is to open the folder")

    def open_folder(folder, model_type: str):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        return transformers.AutoTokenizer.from_pretrained(folder)

    return open_folder


def test_folder_with_either_or_both(of_kind, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model or tokenizer\.json"):
        load_tokenizer(tmp_path)
    shutil.copy(of_kind("neox").path, tmp_path)
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTokenizer)
    shutil.copy(of_kind("bpe").path, tmp_path)
    assert isinstance(load_tokenizer(tmp_path), SentencePieceTokenizer)
    assert isinstance(load_tokenizer(tmp_path / "tokenizer.json"), HuggingFaceTokenizer)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "neox"])
@pytest.mark.parametrize("name", ["tokenizer", "other"])
def test_copy_of_a_bare_file(of_kind, open_with_transformers, gene_names, tmp_path, kind, name):
    source = tmp_path / f"{name}{of_kind(kind).path.suffix}"
    shutil.copy(of_kind(kind).path, source)
    folder = tmp_path / "a" / "copy"
    copy_tokenizer(source, folder)
    ours, theirs = load_tokenizer(folder), open_with_transformers(folder, "gpt_neox" if kind == "neox" else "gemma2")
    assert ours.fingerprint == of_kind(kind).fingerprint
    texts = [*TEXTS, *make_sentences(gene_names)]
    start = [] if ours.bos_id is None else [ours.bos_id]
    assert theirs(texts)["input_ids"] == [start + ids for ids in ours.encode_batch(texts)]
    assert [theirs.decode(ids, skip_special_tokens=True) for ids in ours.encode_batch(texts)] == texts
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.eos_id, ours.pad_id)
    assert len(theirs) == ours.vocab_size


def test_pieces_of_a_written_json(of_kind, tmp_path):
    """Ids, and the kinds of pieces, are those of the model."""
    copy_tokenizer(of_kind("bpe").path, tmp_path)
    model = of_kind("bpe")
    written = load_tokenizer(tmp_path / "tokenizer.json")
    assert [written.piece(i) for i in range(700)] == [model.piece(i) for i in range(700)]
    for name in ("vocab_size", "pad_id", "bos_id", "eos_id", "stop_ids"):
        assert getattr(written, name) == getattr(model, name), name
    special = {
        t["content"] for t in json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"] if t["special"]
    }
    assert special == {"<pad>", "<eos>", "<bos>", "<unk>"}


def test_files_of_a_checkpoint_are_copied_as_they_are(of_kind, tmp_path):
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    shutil.copy(of_kind("neox").path, source)
    names = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"]
    for name in names:
        (source / name).write_text(json.dumps({"eos_token": "<|endoftext|>", "in": name}))
    (source / "model.safetensors").touch()
    copy_tokenizer(source, folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(["tokenizer.json", *names])
    for file in folder.iterdir():
        assert file.read_bytes() == (source / file.name).read_bytes()
    copy_tokenizer(folder, folder)
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_model_of_a_checkpoint_with_and_without_json(of_kind, open_with_transformers, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(of_kind("bpe").path, source)
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    copy_tokenizer(source, tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["tokenizer.model", "tokenizer_config.json"]
    theirs = open_with_transformers(tmp_path / "model", "gemma2")
    assert theirs(" CD3D CD4.")["input_ids"] == [2, *of_kind("bpe").encode(" CD3D CD4.")]
    theirs.save_pretrained(source)
    copy_tokenizer(source, tmp_path / "both")
    names = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == names
    assert (tmp_path / "both" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_demo_tokenizer(bundle, open_with_transformers, tmp_path):
    """The unigram model that the demo trains; every word of its vocabulary, and texts as its prompts have them."""
    copy_tokenizer(bundle.tokenizer, tmp_path)
    oracle = sentencepiece.SentencePieceProcessor(model_file=bundle.tokenizer)
    normal = [i for i in range(4, oracle.vocab_size()) if not oracle.IsByte(i)]
    pieces = [oracle.IdToPiece(i).replace("▁", " ") for i in normal]
    assert len(pieces) > 900
    texts = [*TEXTS, *pieces, *(" ".join(pieces[i : i + 40]) + ".\n" for i in range(0, len(pieces), 20))]
    theirs = open_with_transformers(tmp_path, "gemma2")
    assert theirs(texts)["input_ids"] == [[2, *ids] for ids in oracle.Encode(texts)]


def test_other_kinds_of_model_cannot_be_written(train, tmp_path):
    path = train(["a b C, D-1.é²ﬁ Cell: B-1. c."] * 9, model_type="char", vocab_size=300, hard_vocab_limit=False)
    with pytest.raises(ValueError, match="neither a unigram nor a BPE model"):
        copy_tokenizer(path, tmp_path / "copy")


def test_json_that_would_give_other_ids_is_not_written(monkeypatch, of_kind, tmp_path):
    def without_merges(pieces, unknown):
        ids = {piece.piece: i for i, piece in enumerate(pieces)}
        return models.BPE(ids, [], unk_token=pieces[unknown].piece, byte_fallback=True)

    monkeypatch.setattr(sentence_piece_json, "_bpe", without_merges)
    with pytest.raises(ValueError, match=r"cannot be written as tokenizer\.json: "):
        copy_tokenizer(of_kind("bpe").path, tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_broken_source(of_kind, tmp_path):
    path = rewrite(shutil.copy(of_kind("neox").path, tmp_path / "x.json"), normalizer={"type": "Lowercase"})
    with pytest.raises(ValueError, match="changes text"):
        copy_tokenizer(path, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        copy_tokenizer(tmp_path / "no.model", tmp_path / "copy")


def test_protobuf_that_does_not_fit(monkeypatch, of_kind, tmp_path):
    """Reading needs none of it; writing a tokenizer.json says what to install."""
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    assert load_tokenizer(of_kind("bpe").path).encode("CD3D")
    with pytest.raises(ImportError, match=r'pip install "protobuf>=7", or "sentencepiece<0\.2\.2"'):
        copy_tokenizer(of_kind("bpe").path, tmp_path / "x")
