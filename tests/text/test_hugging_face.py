"""``tokenizer.json`` files: GPT-NeoX's kind, and Gemma's as transformers converts it."""

import hashlib
import json
import pickle
import shutil
import unicodedata

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, processors

from c2s_jax.text import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer
from tests.text.conftest import make_sentences
from tests.text.neox import rewrite

TEXTS = [
    "",
    " ",
    "CD3D",
    " CD3D CD4.",
    "a  b\n\nc",
    "Zell-Typ: ü™🧬",
    "\tx\n",
    "Cell 1:\nHLA-DRA .",
    "x     y \n\n\n z",
]
CONTROL = ["<|endoftext|>", "<|padding|>", "<eos>", "<bos>", "<pad>", "<unk>"]


@pytest.fixture
def neox_file(neox, tmp_path):
    return shutil.copy(neox.path, tmp_path / "tokenizer.json")


@pytest.fixture
def neox_config(neox_file, tmp_path):
    """Function that writes tokenizer_config.json, or another file, and loads the folder."""

    def load(name: str = "tokenizer_config.json", **settings) -> HuggingFaceTokenizer:
        (tmp_path / name).write_text(json.dumps(settings))
        return load_tokenizer(tmp_path)

    return load


@pytest.fixture(scope="module")
def spm(of_kind) -> SentencePieceTokenizer:
    return of_kind("bpe")


@pytest.fixture(scope="module")
def gemma(spm, tmp_path_factory) -> HuggingFaceTokenizer:
    """The SentencePiece BPE model as transformers writes it, without the ``.model``."""
    transformers = pytest.importorskip("transformers", reason="converts the model")
    model, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("converted")
    shutil.copy(spm.path, model)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    turns = {str(spm.encode(x)[0]): x for x in ("<start_of_turn>", "<end_of_turn>")}
    added = {i: {"content": x, "special": True, "normalized": False} for i, x in turns.items()}
    config = {"tokenizer_class": "GemmaTokenizer", **names, "added_tokens_decoder": added}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    marked = {t["content"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"] if t["special"]}
    assert {"<eos>", "<end_of_turn>"} <= marked
    return load_tokenizer(folder)


@pytest.fixture(params=["bpe", "unigram", "neox", "gemma"])
def any_tokenizer(request, of_kind) -> Tokenizer:
    return request.getfixturevalue("gemma") if request.param == "gemma" else of_kind(request.param)


def test_every_kind_is_a_tokenizer(any_tokenizer):
    assert isinstance(any_tokenizer, Tokenizer)
    for text in TEXTS:
        assert any_tokenizer.decode(any_tokenizer.encode(text)) == text
    assert any_tokenizer.encode_batch(TEXTS) == [any_tokenizer.encode(text) for text in TEXTS]
    assert any_tokenizer.fingerprint == hashlib.sha256(any_tokenizer.path.read_bytes()).hexdigest()
    assert any_tokenizer.piece(any_tokenizer.eos_id) in ("<eos>", "<|endoftext|>")


@pytest.mark.parametrize("copied", [False, True])
def test_text_never_gives_a_control_id(any_tokenizer, copied):
    """Whatever an abstract or a label spells; turn markers are pieces where the vocabulary has them."""
    t = pickle.loads(pickle.dumps(any_tokenizer)) if copied else any_tokenizer
    control = {t.pad_id, t.eos_id, t.bos_id, *(i for i in range(4) if t.piece(i) in CONTROL)}
    text = "a <eos>b<|endoftext|> CD4<|padding|><pad>.\n<bos><unk>"
    for ids in (t.encode(text), *t.encode_batch([text, *CONTROL])):
        assert not control & set(ids)
    assert t.decode(t.encode(text)) == text
    assert [t.decode(ids) for ids in t.encode_batch(CONTROL)] == CONTROL
    for stop in t.stop_ids[1:]:
        assert t.encode(f"a{t.piece(stop)}").count(stop) == 1


def test_ids_and_defaults_of_gpt_neox(neox):
    assert (neox.eos_id, neox.pad_id, neox.bos_id, neox.stop_ids) == (0, 1, None, (0,))
    assert neox.vocab_size == 500 + 3
    assert neox.decode([0, *neox.encode("CD4 CD8"), 0, 1]) == "CD4 CD8"
    assert neox.encode("a  b   c")[1] == neox.encode("  ")[0]
    assert neox.piece(neox.encode(" CD")[0]).startswith("Ġ")


def test_gpt_neox_equals_transformers(neox, neox_file, tmp_path, gene_names):
    transformers = pytest.importorskip("transformers", reason="the reference")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTNeoXTokenizer"}')
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, *make_sentences(gene_names), "e\u0301 stays one", "\n\nX"]
    assert neox.encode_batch(texts) == oracle(texts)["input_ids"]
    assert [neox.decode(ids) for ids in neox.encode_batch(texts)] == [unicodedata.normalize("NFC", x) for x in texts]


def test_converted_gemma_has_the_ids_of_sentencepiece(spm, gemma, gene_names):
    texts = [*TEXTS, *make_sentences(gene_names), "<eos> <mask>", "<start_of_turn>user\nCD4<end_of_turn>\n", "a▁b"]
    assert gemma.encode_batch(texts) == spm.encode_batch(texts)
    assert [gemma.decode(spm.encode(x)) for x in texts] == [spm.decode(spm.encode(x)) for x in texts]
    for name in ("vocab_size", "pad_id", "bos_id", "eos_id", "stop_ids"):
        assert getattr(gemma, name) == getattr(spm, name), name
    assert [gemma.piece(i) for i in range(300)] == [spm.piece(i) for i in range(300)]


def test_converted_gemma_alone(gemma, tmp_path):
    """Without the files beside it, ``<bos>`` is known from the post-processor or from the vocabulary."""
    alone = shutil.copy(gemma.path, tmp_path / "tokenizer.json")
    for changes in ({}, {"post_processor": None}):
        t = load_tokenizer(rewrite(alone, **changes))
        assert (t.pad_id, t.eos_id, t.bos_id, t.stop_ids) == (0, 1, 2, gemma.stop_ids)


def test_special_tokens_from_the_files_beside(neox_config, neox_file):
    backend = Backend.from_file(str(neox_file))
    backend.add_special_tokens(["<|stop|>", "<|start|>"])
    backend.save(str(neox_file))
    stop, start = backend.token_to_id("<|stop|>"), backend.token_to_id("<|start|>")
    assert neox_config("config.json", eos_token_id=stop, pad_token_id=stop).stop_ids == (0,)  # by name, not by number
    assert neox_config("special_tokens_map.json", eos_token="<|start|>").stop_ids == (start,)
    t = neox_config(eos_token="<|stop|>", pad_token={"content": "<|endoftext|>"})
    assert (t.stop_ids, t.pad_id, t.bos_id) == ((stop,), 0, None)
    assert t.decode([start, *t.encode("<|stop|>"), stop, 0, 1]) == "<|stop|>"
    for adds, bos in ((None, None), (False, None), (True, start)):
        assert neox_config(bos_token="<|start|>", add_bos_token=adds, pad_token=None).bos_id == bos


def test_special_tokens_of_an_unusual_vocabulary_come_from_config_json(neox_config, neox_file, tmp_path):
    text = neox_file.read_text().replace("<|endoftext|>", "</s>").replace("<|padding|>", "[PAD]")
    neox_file.write_text(text)
    with pytest.raises(ValueError, match="which token is eos"):
        load_tokenizer(tmp_path)
    t = neox_config("config.json", eos_token_id=0)
    assert (t.eos_id, t.pad_id) == (0, 0)
    with pytest.raises(ValueError, match="which token is eos"):
        neox_config("config.json", eos_token_id=10**6)


def test_beginning_known_from_the_post_processor(neox_config, neox_file):
    backend = Backend.from_file(str(neox_file))
    backend.add_special_tokens(["<|start|>"])
    start = backend.token_to_id("<|start|>")
    template = {"single": "<|start|> $A", "pair": "<|start|> $A $B", "special_tokens": [("<|start|>", start)]}
    backend.post_processor = processors.TemplateProcessing(**template)
    backend.save(str(neox_file))
    t = load_tokenizer(neox_file)
    assert t.bos_id == start
    assert start not in t.encode("a")
    assert neox_config(add_bos_token=False).bos_id is None


def test_named_token_that_is_not_there(neox_config):
    with pytest.raises(ValueError, match=r"no token '</s>', which the files beside it name eos_token"):
        neox_config(eos_token="</s>")


def test_truncation_and_padding_in_the_file_do_not_apply(neox, neox_file):
    backend = Backend.from_file(str(neox_file))
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(neox_file))
    t = load_tokenizer(neox_file)
    assert t.encode_batch(TEXTS) == neox.encode_batch(TEXTS)
    assert t.encode(TEXTS[4]) == neox.encode(TEXTS[4])


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
REFUSED = {
    "lower": {"normalizer": {"type": "Lowercase"}},
    "nfkc": {"normalizer": {"type": "NFKC"}},
    "nfd": {"normalizer": {"type": "NFD"}},
    "merged spaces": {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}},
    "prefix space": {"pre_tokenizer": {**BYTES, "add_prefix_space": True}},
    "words only": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, BYTES]}},
    "decoder": {"decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_tokenizer_that_changes_text_is_refused(neox_file, changes):
    with pytest.raises(ValueError, match=r"tokenizer\.json changes text"):
        load_tokenizer(rewrite(neox_file, **changes))


def test_dummy_prefix_is_refused(gemma, tmp_path):
    path = shutil.copy(gemma.path, tmp_path / "tokenizer.json")
    decoders = [
        *json.loads(path.read_text())["decoder"]["decoders"],
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    changes = {"pre_tokenizer": METASPACE, "decoder": {"type": "Sequence", "decoders": decoders}}
    with pytest.raises(ValueError, match=r"tokenizer\.json changes text"):
        load_tokenizer(rewrite(path, **changes))


def test_dropout_is_refused(neox_file):
    model = json.loads(neox_file.read_text())["model"]
    with pytest.raises(ValueError, match="BPE dropout"):
        load_tokenizer(rewrite(neox_file, model=model | {"dropout": 0.1}))


def test_special_token_that_is_a_piece_of_text_is_refused(neox_file):
    backend = Backend.from_file(str(neox_file))
    backend.add_special_tokens(["C"])
    backend.save(str(neox_file))
    with pytest.raises(ValueError, match="reads the control token 'C' from text"):
        load_tokenizer(neox_file)


def test_control_token_read_from_text_is_refused(tmp_path):
    """A unigram vocabulary matches every entry, special or not."""
    letters = [(x, -9.0) for x in "▁abcdefghijklmnopqrstuvwxyz<>/|CDB-1:.,\n"]
    backend = Backend(models.Unigram([("<eos>", 0.0), ("<pad>", 0.0), *letters], unk_id=1, byte_fallback=False))
    backend.add_special_tokens(["<eos>", "<pad>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="reads the control token '<eos>' from text"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a JSON file"),
        ("[1]", "holds no JSON object"),
        ('{"vocab_size": 9}', "is not a Hugging Face tokenizer: it has no 'model'"),
        ('{"model": {"type": "Nothing"}}', "is not a Hugging Face tokenizer: "),
    ],
)
def test_file_of_another_kind(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=f"tokenizer.json {message}"):
        load_tokenizer(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        load_tokenizer(tmp_path / "no.json")


@pytest.mark.parametrize("bad", [-1, 503])
def test_id_outside_the_vocabulary_is_an_error(neox, bad):
    with pytest.raises(ValueError, match=f"token id {bad} at position 1 is outside 0 … 502"):
        neox.decode([5, bad])
