"""Our own folders: what is kept, what a reader may choose, and what does not fit."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from c2s_jax.models import GPTNeoXConfig, architectures
from c2s_jax.models.export import RUN_SETTINGS, load_export, read_description, save_export
from c2s_jax.models.hf import to_hf
from c2s_jax.models.weights import load_config, load_model, load_weights
from c2s_jax.parallel import make_mesh, parameter_shardings
from tests.toy import MODEL, named

GEMMA = {k: v for k, v in dataclasses.asdict(MODEL).items() if k not in RUN_SETTINGS}
PYTHIA = GPTNeoXConfig(vocab_size=64, embed_dim=16, ffw_dim=32, num_layers=2, num_heads=4, rotary_fraction=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as a run has it: rematerialised, dropped out, in two dtypes."""
    config = dataclasses.replace(MODEL, remat="full", dropout=0.1, dtype="bfloat16", attention_chunk=64)
    folder = tmp_path_factory.mktemp("export") / "model"
    save_export(make(config), folder, hugging_face={"max_position_embeddings": 77})
    return folder


def make(config: Any) -> Any:
    return architectures.make_model(config, nnx.Rngs(3))


def values(model: Any) -> dict[str, Any]:
    return named(nnx.state(model, nnx.Param))


def test_settings_of_a_run_are_not_kept(folder: Path) -> None:
    config = load_export(folder).config
    assert config == dataclasses.replace(MODEL, dtype="bfloat16")
    assert read_description(folder)["hugging_face"] == {"max_position_embeddings": 77}
    assert load_config(folder) == config
    chosen = load_export(folder, dtype="float32", param_dtype="bfloat16", dropout=0.2).config
    assert (chosen.dtype, chosen.param_dtype, chosen.dropout) == ("float32", "bfloat16", 0.2)
    assert load_config(folder, dtype="bfloat16").param_dtype == "bfloat16"


def test_values_dtypes_and_places(folder: Path) -> None:
    wanted = values(make(MODEL))
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    for shardings in (None, lambda params: parameter_shardings(params, mesh)):
        model = load_model(folder, shardings=shardings)
        assert values(model).keys() == wanted.keys()
        for name, value in values(model).items():
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    assert model.embedding.get_value().sharding.spec == PartitionSpec("tensor", ("fsdp", "sequence"))
    narrow = load_export(folder, dtype="bfloat16")
    for name, value in values(narrow).items():
        np.testing.assert_array_equal(value, np.asarray(jax.numpy.asarray(wanted[name], "bfloat16")), err_msg=name)


@pytest.mark.parametrize("config", [MODEL, PYTHIA], ids=["gemma2", "gpt_neox"])
def test_one_reader_for_both_formats(tmp_path: Path, config: Any) -> None:
    model = make(config)
    save_export(model, tmp_path / "ours")
    to_hf(model, tmp_path / "theirs")
    run = dataclasses.replace(config, remat="dots", dtype="bfloat16")
    for source in ("ours", "theirs"):
        weights = named(load_weights(tmp_path / source, run))
        assert weights.keys() == values(model).keys()
        for name, value in values(load_model(tmp_path / source)).items():
            np.testing.assert_array_equal(value, values(model)[name], err_msg=name)
            np.testing.assert_array_equal(value, weights[name], err_msg=name)
        with pytest.raises(ValueError, match=r"holds another model than the configuration's:\n  ffw_dim: 32, not 48$"):
            load_weights(tmp_path / source, dataclasses.replace(run, ffw_dim=48))


def test_files_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        load_export(tmp_path)
    broken = tmp_path / "broken"
    save_export(make(PYTHIA), broken)
    path, description = broken / "model.json", read_description(broken)
    config = description["config"]
    for wrong, message in [
        ({**description, "architecture": "llama"}, r"describes no model of this version: 'llama'"),
        ({**description, "config": {**config, "novel": 1}}, r"describes no model of this version: .*'novel'"),
        (
            {**description, "config": {**config, "ffw_dim": 64}},
            r"blocks\.ffw\.down\.kernel \(2, 32, 16\); .* \(2, 64, 16\)",
        ),
        ({**description, "config": {**config, "num_layers": 3}}, r"params has blocks\.\S* \(2, .*would be \(3, "),
        ({**description, "architecture": "gemma2", "config": GEMMA}, r"params has blocks\.attention\.\S* .*absent"),
        ({"config": config}, r"describes no model of this version: 'architecture'"),
    ]:
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            load_export(broken)
    path.write_text(json.dumps(description))
    shutil.rmtree(broken / "params")
    with pytest.raises(FileNotFoundError, match=r"holds model\.json, but no params"):
        load_export(broken)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"model\.json is not a JSON file"):
        load_export(broken)
