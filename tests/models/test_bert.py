"""BERT and RoBERTa against transformers."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from c2s_jax.models.bert import RELEASED, Bert, BertConfig
from c2s_jax.models.bert_files import bert_from_hf
from tests.models.bert_checkpoints import LENGTHS, hidden_states, make_bert, random_rows, save_bert

TOLERANCE = 1e-5
VISIBLE = 1e-2
INSIDE = np.arange(32) < LENGTHS[:, None]


@pytest.fixture(scope="module")
def theirs():
    return make_bert()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    return save_bert(theirs, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def ours(folder) -> Bert:
    return bert_from_hf(folder)


@pytest.fixture(scope="module")
def token_types() -> NDArray:
    return np.random.default_rng(1).integers(0, 2, (len(LENGTHS), 32), np.int32)


def run(model: Bert, *args, **options) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p: nnx.merge(graphdef, p)(*args, **options))(params))


def test_hidden_states_of_every_layer(theirs, ours, token_types) -> None:
    tokens = random_rows()
    wanted = hidden_states(theirs, tokens, LENGTHS, token_types)
    assert len(wanted) == 4
    for layer, expected in enumerate(wanted):
        found = run(ours, tokens, LENGTHS, token_types, layer=layer)
        assert expected[INSIDE].std() > 0.5
        np.testing.assert_allclose(found[INSIDE], expected[INSIDE], rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(run(ours, tokens, LENGTHS, token_types), found)


def test_padding_does_not_matter(ours) -> None:
    rows, other = random_rows(), random_rows(seed=1, width=40)
    other[:, :32][INSIDE] = rows[INSIDE]
    np.testing.assert_allclose(run(ours, rows, LENGTHS)[INSIDE], run(ours, other, LENGTHS)[:, :32][INSIDE], atol=2e-6)


def test_positions_of_roberta(tmp_path) -> None:
    theirs = make_bert("roberta")
    ours = bert_from_hf(save_bert(theirs, tmp_path / "roberta"))
    assert ours.config.first_position == 2
    assert ours.config.max_length == 38
    tokens = random_rows()
    tokens[~INSIDE] = 1  # RoBERTa counts positions over tokens that are not padding
    expected = hidden_states(theirs, tokens, LENGTHS)[-1]
    np.testing.assert_allclose(run(ours, tokens, LENGTHS)[INSIDE], expected[INSIDE], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_other_activations(tmp_path, activation: str) -> None:
    theirs = make_bert(hidden_act=activation)
    ours = bert_from_hf(save_bert(theirs, tmp_path / activation))
    expected = hidden_states(theirs, random_rows(), LENGTHS)[-1]
    np.testing.assert_allclose(run(ours, random_rows(), LENGTHS)[INSIDE], expected[INSIDE], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "feature", ["mask", "token types", "positions", "activation", "epsilon", "embedding norm", "post-norm"]
)
def test_every_feature_matters(theirs, ours, token_types, feature: str) -> None:
    """With one of them off, the comparison fails."""
    tokens, lengths, types, config = random_rows(), LENGTHS, token_types, ours.config
    changed = nnx.clone(ours)
    if feature == "mask":
        lengths = np.full_like(LENGTHS, 32)
    elif feature == "token types":
        types = None
    elif feature == "positions":
        changed.config = dataclasses.replace(config, first_position=1)
    elif feature == "activation":
        changed.layers.activation = jax.nn.relu
    elif feature == "epsilon":
        changed.layers.attention_norm.eps = 0.1
    elif feature == "embedding norm":
        changed.embedding_norm.bias[...] = 0.0
    else:
        changed.layers.ffw_norm.scale[...] = np.ones(32)
    expected = hidden_states(theirs, tokens, LENGTHS, token_types)[-1]
    assert np.abs(run(changed, tokens, lengths, types)[INSIDE] - expected[INSIDE]).max() > VISIBLE


def test_too_long_and_too_deep(ours) -> None:
    with pytest.raises(ValueError, match="41 tokens a row; the model has positions for 40"):
        ours(np.zeros((1, 41), np.int32), np.array([41]))
    with pytest.raises(ValueError, match="layer=4 is not one of 0"):
        ours(np.zeros((1, 4), np.int32), np.array([4]), layer=4)


@pytest.mark.parametrize(("name", "millions"), [("biobert-base-cased-v1.1", 107.7), ("roberta-large", 354.3)])
def test_released_sizes(name: str, millions: float) -> None:
    """Parameters without the pooler, from transformers' own count."""
    model = nnx.eval_shape(lambda: Bert(BertConfig(**RELEASED[name]), rngs=nnx.Rngs(0)))
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(nnx.state(model)))
    assert round(count / 1e6, 1) == millions


def rewritten(folder: Path, target: Path, change, **config) -> Path:
    """A copy with other tensors and other keys of its configuration."""
    target.mkdir()
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), target / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(settings | config))
    return target


def test_names_with_prefix_and_of_the_first_files(ours, folder, tmp_path) -> None:
    def old(tensors):
        names = {name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta") for name in tensors}
        return {f"bert.{names[name]}": value for name, value in tensors.items()} | {"cls.predictions.bias": np.ones(3)}

    again = bert_from_hf(rewritten(folder, tmp_path / "old", old))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(ours))


def test_weights_in_a_pickle(theirs, ours, folder, tmp_path) -> None:
    """As BioBERT was released; safetensors files are preferred."""
    shutil.copy(folder / "config.json", tmp_path)
    state = {f"bert.{name}": value for name, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    again = bert_from_hf(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(ours))
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    bert_from_hf(tmp_path)


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({"encoder.layer.1.output.dense.weight": None}, {}, r"lacks the tensor encoder\.layer\.1\.output\.dense"),
        (
            {"encoder.layer.0.output.dense.weight": np.ones((3, 2), np.float32)},
            {},
            r"output\.dense\.weight .* \(3, 2\); .*\(32, 48\)",
        ),
        ({}, {"num_hidden_layers": 2}, r"encoder\.layer\.2\..*; by its config.json there are 2 layers"),
        ({}, {"model_type": "deberta"}, "model_type='deberta' is not supported"),
        ({}, {"hidden_act": "silu"}, "hidden_act='silu' is not supported"),
        ({}, {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key' is not supported"),
    ],
)
def test_what_does_not_fit_is_refused(folder, tmp_path, change, config, message) -> None:
    def changed(tensors):
        return {name: value for name, value in (tensors | change).items() if value is not None}

    with pytest.raises(ValueError, match=message):
        bert_from_hf(rewritten(folder, tmp_path / "other", changed, **config))
