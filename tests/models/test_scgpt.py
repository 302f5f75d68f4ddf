"""scGPT's encoder against the same written with torch's layers."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models.scgpt import ScGPT, ScGPTConfig
from c2s_jax.models.scgpt_files import scgpt_from_folder
from tests.models.parity import Identity
from tests.models.scgpt_oracle import GENES, Reference, tensors, write_folder

LENGTHS = np.array([17, 2, 24, 1], np.int32)
INSIDE = np.arange(24) < LENGTHS[:, None]
VISIBLE = 1e-2


@pytest.fixture(scope="module")
def theirs() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("scgpt") / "released", theirs)


@pytest.fixture(scope="module")
def ours(folder) -> ScGPT:
    return scgpt_from_folder(folder)[0]


def inputs(seed: int = 0, width: int = 24) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    genes = rng.integers(0, len(GENES), (4, width)).astype(np.int32)
    values = rng.integers(1, 51, (4, width)).astype(np.float32)
    genes[:, 0], values[:, 0] = len(GENES) + 1, -2.0
    values[0, 3] = 600.0  # above the limit
    return genes, values


def run(model: ScGPT, *args: NDArray, **options) -> NDArray:
    graphdef, params = nnx.split(model)
    return np.asarray(jax.jit(lambda p: nnx.merge(graphdef, p)(*args, **options))(params))


@pytest.fixture(scope="module")
def expected(theirs) -> NDArray:
    genes, values = inputs()
    return theirs(torch.from_numpy(genes).long(), torch.from_numpy(values), torch.from_numpy(~INSIDE)).numpy()


def test_hidden_states(ours, expected) -> None:
    assert expected[INSIDE].std() > 0.5
    np.testing.assert_allclose(run(ours, *inputs(), LENGTHS)[INSIDE], expected[INSIDE], rtol=0, atol=1e-5)


def test_names_of_plain_attention_are_the_same_model(theirs, ours, tmp_path) -> None:
    other, vocabulary = scgpt_from_folder(write_folder(tmp_path / "plain", theirs, fast=False))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(other), nnx.state(ours))
    assert vocabulary["<cls>"] == len(GENES) + 1


def test_padding_does_not_matter(ours) -> None:
    (genes, values), (more_genes, more_values) = inputs(), inputs(seed=1, width=32)
    more_genes[:, :24][INSIDE], more_values[:, :24][INSIDE] = genes[INSIDE], values[INSIDE]
    wide = run(ours, more_genes, more_values, LENGTHS)[:, :24]
    np.testing.assert_allclose(run(ours, genes, values, LENGTHS)[INSIDE], wide[INSIDE], rtol=0, atol=5e-6)


@pytest.mark.parametrize("feature", ["mask", "limit", "value norm", "gene norm", "activation", "order of q, k, v"])
def test_every_feature_matters(ours, expected, monkeypatch, feature: str) -> None:
    """With one of them off, the comparison fails."""
    changed, lengths = nnx.clone(ours), LENGTHS
    if feature == "mask":
        lengths = np.full_like(LENGTHS, 24)
    elif feature == "limit":
        monkeypatch.setattr("c2s_jax.models.scgpt.LARGEST_VALUE", 1e4)
    elif feature == "value norm":
        changed.values.norm = Identity()
    elif feature == "gene norm":
        changed.embedding_norm = Identity()
    elif feature == "activation":
        changed.layers.activation = jax.nn.gelu
    else:
        changed.layers.q, changed.layers.k = changed.layers.v, changed.layers.q
    difference = np.abs(run(changed, *inputs(), lengths) - expected)[INSIDE].max()
    # Norms make large values much alike.
    assert difference > (1e-4 if feature == "limit" else VISIBLE)


def test_released_size() -> None:
    """Embedding, 12 layers and value encoder of the model of 33 million cells, whose vocabulary has 60,697 entries."""
    model = nnx.eval_shape(lambda: ScGPT(ScGPTConfig(vocab_size=60_697), rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    layer = 4 * (512 * 512 + 512) + 2 * (512 * 512 + 512) + 2 * 2 * 512
    assert count == 60_697 * 512 + 2 * 512 + 12 * layer + (512 + 512) + (512 * 512 + 512) + 2 * 512


def test_absent_special_tokens_are_appended(theirs, tmp_path) -> None:
    folder = write_folder(tmp_path / "x", theirs)
    (folder / "vocab.json").write_text(json.dumps({gene: i for i, gene in enumerate(GENES)}))
    assert [scgpt_from_folder(folder)[1][token] for token in ("<pad>", "<cls>", "<eoc>")] == [60, 61, 62]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"input_emb_style": "scaling"}, "input_emb_style='scaling' is not supported, only 'continuous'"),
        ({"use_batch_labels": True}, "use_batch_labels=True is not supported"),
        ({"nlayers": 2}, r"layers\.2\..*; by args.json there are 2 layers"),
        ({"nlayers": 4}, r"lacks the tensor transformer_encoder\.layers\.3\.self_attn\.Wqkv\.weight"),
        ({"d_hid": 64}, r"layers\.0\.linear2\.weight .* shape \(32, 48\); by the configuration it is \(32, 64\)"),
        ({"embsize": 16}, "has 96 rows, not 48"),
    ],
)
def test_what_does_not_fit_is_refused(theirs, tmp_path, args, message) -> None:
    with pytest.raises(ValueError, match=message):
        scgpt_from_folder(write_folder(tmp_path / "x", theirs, **args))


def test_files_that_are_missing_or_wrong(theirs, tmp_path) -> None:
    folder = write_folder(tmp_path / "x", theirs)
    (folder / "vocab.json").write_text(json.dumps({"A": 0, "B": 0}))
    with pytest.raises(ValueError, match="ids are not the numbers 0 to 4, each once"):
        scgpt_from_folder(folder)
    state = tensors(theirs, fast=True)
    del state["value_encoder.norm.bias"]
    write_folder(tmp_path / "y", theirs)
    torch.save(state, tmp_path / "y" / "best_model.pt")
    with pytest.raises(ValueError, match=r"best_model\.pt lacks the tensor value_encoder\.norm\.bias"):
        scgpt_from_folder(tmp_path / "y")
    (folder / "args.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no args\.json in"):
        scgpt_from_folder(folder)
