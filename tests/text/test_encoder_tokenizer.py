"""WordPiece against the reference's own implementation in Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from c2s_jax.text import EncoderTokenizer
from tests.text.neox import real_file

TEXTS = [
    "A CD8+ T cell (naïve) secretes IFN-γ.",
    "  The   É\tcell\nline — HLA-DRB1, \u4e2d\u6587 ",
    "unaffable unaffablest",
    "",
    "[SEP] in the text [MASK]",
    "x" * 150,
]
WORDS = ["a", "cell", "line", "the", "t", "un", "##aff", "##able", "##st", "(", ")", "+", "-", ".", ",", "γ", "—"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
UPPER = ["A", "T", "The", "É", "##CD", "CD", "##8", "8", "naïve", "ï", "\u4e2d"]


def write_vocabulary(folder: Path, cased: bool, **settings) -> Path:
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokens += UPPER if cased else ["naive", "cd", "e"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", "utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def reference(folder: Path, **settings):
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy", reason="the reference")
    return legacy.BertTokenizerLegacy(str(folder / "vocab.txt"), **settings)


@pytest.mark.parametrize("cased", [True, False])
def test_ids_are_the_references(tmp_path, cased: bool) -> None:
    """Whether text is lower-cased is told by the vocabulary."""
    folder = write_vocabulary(tmp_path / "x", cased)
    theirs, ours = reference(folder, do_lower_case=not cased), EncoderTokenizer(folder)
    wanted = [theirs(text)["input_ids"] for text in TEXTS]
    assert [ids.tolist() for ids in ours.encode_batch(TEXTS)] == wanted
    assert any(1 in ids for ids in wanted)  # something is unknown
    assert ours.special_ids == (2, 3)
    assert ours.vocab_size == len(theirs)
    short = [theirs(text, truncation=True, max_length=6)["input_ids"] for text in TEXTS]
    assert [ids.tolist() for ids in ours.encode_batch(TEXTS, max_length=6)] == short
    assert [ids.tolist() for ids in ours.encode_batch(TEXTS)] == wanted  # not cut for good


def test_settings_beside_win(tmp_path) -> None:
    folder = write_vocabulary(tmp_path / "x", cased=True, do_lower_case=True, strip_accents=False)
    theirs = reference(folder, do_lower_case=True, strip_accents=False)
    wanted = [theirs(text)["input_ids"] for text in TEXTS]
    assert [ids.tolist() for ids in EncoderTokenizer(folder).encode_batch(TEXTS)] == wanted


def test_json_gives_the_same_and_is_preferred(tmp_path) -> None:
    folder = write_vocabulary(tmp_path / "x", cased=False)
    before = EncoderTokenizer(folder)
    before._model.enable_padding(length=64)
    before._model.enable_truncation(4)
    before._model.save(str(folder / "tokenizer.json"))
    after = EncoderTokenizer(folder)
    assert after.path.name == "tokenizer.json"
    assert after.fingerprint != before.fingerprint
    wanted = EncoderTokenizer(folder / "vocab.txt").encode_batch(TEXTS)
    for found, expected in zip(after.encode_batch(TEXTS), wanted):
        np.testing.assert_array_equal(found, expected)


def test_byte_level_tokenizer_of_roberta(tmp_path) -> None:
    model = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = EncoderTokenizer(tmp_path)
    assert tokenizer.encode_batch(["abb"])[0].tolist() == [0, 4, 3, 1]
    assert tokenizer.special_ids == (0, 1)


def test_refusals(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json or vocab\.txt"):
        EncoderTokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"no WordPiece vocabulary: it lacks \[UNK\], \[CLS\], \[SEP\]"):
        EncoderTokenizer(tmp_path)
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="no special tokens around a text"):
        EncoderTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a Hugging Face tokenizer"):
        EncoderTokenizer(tmp_path)
    with pytest.raises(TypeError, match="not one text"):
        EncoderTokenizer(write_vocabulary(tmp_path / "x", cased=False)).encode_batch("a cell")


def test_biobert_vocabulary() -> None:
    path = real_file("vocab_bert_cased", "vocab.txt")
    ours, theirs = EncoderTokenizer(path), reference(path.parent, do_lower_case=False)
    genes = "HLA-DRB1 MT-CO3 Nkg7 RP11-34P13.7"
    texts = [*TEXTS, genes, "Interferon-gamma signalling in CD14+ monocytes, p < 0.05 (n = 12)."]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == [theirs(text)["input_ids"] for text in texts]
