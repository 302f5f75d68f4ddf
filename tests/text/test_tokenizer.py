import hashlib
import json
import pickle

import pytest

from c2s_jax.text import SentencePieceTokenizer, Tokenizer, load_tokenizer

TEXTS = ["", " ", "CD3D", " CD3D CD4.", "a  b\n\nc", "Zell-Typ: ü™🧬", "\tx\n", "Cell 1:\nHLA-DRA ."]


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_undoes_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_have_gemmas_layout_and_encode_adds_none(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    assert [tokenizer.piece(i) for i in range(4)] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    ids = tokenizer.encode("CD3D CD4")
    assert not set(ids) & {0, 1, 2}
    assert "".join(tokenizer.piece(i) for i in ids).replace("▁", " ") == "CD3D CD4"
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_special_text_in_a_prompt_is_not_a_control_id(tokenizer):
    assert tokenizer.eos_id not in tokenizer.encode("<eos>")


def test_stop_ids_are_eos_and_end_of_turn(tokenizer):
    assert tokenizer.stop_ids == (tokenizer.eos_id, tokenizer.encode("<end_of_turn>")[0])


def test_stop_piece_named_by_the_config_beside(train, tmp_path):
    added = {"600": {"content": "<ctrl100>"}, "6": {"content": "<end_of_turn>"}, "5": {"content": "<start_of_turn>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    assert load_tokenizer(train()).stop_ids == (1, 6, 600)


def test_broken_config_beside_is_named(train, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not a JSON file"):
        load_tokenizer(train())


def test_special_ids_decode_to_nothing(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("CD4 CD8"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "CD4 CD8"


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_id_outside_the_vocabulary_is_an_error(tokenizer, bad):
    with pytest.raises(ValueError, match=f"token id {bad} at position 1"):
        tokenizer.decode([5, bad])


def test_fingerprint_is_the_files_hash_and_survives_pickling(tokenizer):
    assert tokenizer.fingerprint == hashlib.sha256(tokenizer.path.read_bytes()).hexdigest()
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    assert copy.encode(" CD3D.") == tokenizer.encode(" CD3D.")


def test_load_from_file_and_folder(tokenizer):
    assert load_tokenizer(tokenizer.path).fingerprint == tokenizer.fingerprint
    assert load_tokenizer(tokenizer.path.parent).fingerprint == tokenizer.fingerprint


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.model"):
        load_tokenizer(tmp_path / "no.model")
    (tmp_path / "vocab.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.model or tokenizer\.json in .*vocab\.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_file_of_another_kind(tmp_path, content):
    path = tmp_path / "x.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.model"):
        SentencePieceTokenizer(path)


@pytest.mark.parametrize(
    "option",
    [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}, {"normalization_rule_name": "nmt_nfkc"}],
)
def test_model_that_changes_text_is_refused(train, option):
    path = train(**option)
    with pytest.raises(ValueError, match="changes text"):
        SentencePieceTokenizer(path)


def test_model_without_padding_is_refused(train):
    path = train(pad_id=-1, bos_id=0)
    with pytest.raises(ValueError, match="<pad>"):
        SentencePieceTokenizer(path)
