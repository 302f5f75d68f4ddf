"""Adapter files that do not fit are refused, and what is there stays as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft", reason="the oracle of adapter files; install c2s_jax[test]")

from flax import nnx
from safetensors.numpy import load_file, save_file

from c2s_jax.models import lora
from c2s_jax.models.peft import CONFIG, WEIGHTS, load_adapter, save_adapter
from tests.models.hf_weights import parameters
from tests.models.peft_oracle import adapted, pair, written_by_peft

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an adapter for GPT-NeoX."""
    folder = tmp_path_factory.mktemp("good")
    written_by_peft(folder, "gpt_neox")
    return folder


def assert_refused(folder: Path, architecture: str, error: type[Exception], *parts: str) -> None:
    """The message has all parts, and the model is as it was before."""
    _, model = pair(architecture)
    lora.add(model, lora.LoRAConfig(rank=2), nnx.Rngs(0))
    graphdef, before = nnx.graphdef(model), parameters(nnx.state(model))
    with pytest.raises(error) as caught:
        load_adapter(model, folder)
    for part in parts:
        assert part in str(caught.value), caught.value
    assert nnx.graphdef(model) == graphdef
    for name, value in parameters(nnx.state(model)).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"peft_type": "IA3"}, ["peft_type='IA3' is not supported, only 'LORA'"]),
        ({"use_dora": True}, ["use_dora=True is not supported"]),
        ({"bias": "lora_only"}, ["bias='lora_only' is not supported, only 'none'"]),
        ({"modules_to_save": ["embed_out"]}, ["modules_to_save=['embed_out']"]),
        ({"fan_in_fan_out": True}, ["fan_in_fan_out=True"]),
        ({"layers_to_transform": [0, 1]}, ["layers_to_transform=[0, 1]"]),
        ({"layers_to_transform": 0}, ["layers_to_transform=0"]),
        ({"exclude_modules": ["dense"]}, ["exclude_modules=['dense']"]),
        ({"trainable_token_indices": [3]}, ["trainable_token_indices=[3]"]),
        ({"lora_bias": True}, ["lora_bias=True"]),
        ({"init_lora_weights": "pissa"}, ["init_lora_weights='pissa' is not supported"]),
        ({"a_key_of_the_future": {"x": 1}}, ["a_key_of_the_future={'x': 1} is not supported"]),
        ({"r": None}, ["r is not given"]),
        ({"r": 0}, ["r=0 and lora_alpha=7 must be a positive integer and a number"]),
        ({"r": 2.5}, ["r=2.5"]),
        ({"lora_alpha": "7"}, ["lora_alpha='7'"]),
        ({"lora_dropout": "0.1"}, ["lora_dropout='0.1' must be a number from 0 to below 1"]),
        ({"target_modules": ["q_proj"]}, ["target_modules=['q_proj'] names no linear map", "'query_key_value'"]),
        ({"target_modules": 3}, ["target_modules=3 must be a string or a list of strings"]),
        ({"target_modules": "(dense"}, ["target_modules: '(dense' is not a regular expression"]),
        (
            {"target_modules": ["gpt_neox.layers.0.attention.dense"]},
            ["target_modules sets gpt_neox.layers.0.attention.dense to True", "the same in all layers of its kind"],
        ),
        ({"rank_pattern": ["dense"]}, ["rank_pattern=['dense'] must be an object"]),
        ({"rank_pattern": {r"layers\.1\.attention\.dense": 4}}, ["rank_pattern sets gpt_neox.layers.0", "to 4"]),
        ({"alpha_pattern": {r"layers\.1\.attention\.dense": 4}}, ["alpha_pattern sets gpt_neox.layers.0"]),
    ],
    ids=str,
)
def test_configurations_that_are_refused(good: Path, tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    config = json.loads((good / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, **changes}))
    assert_refused(tmp_path, "gpt_neox", ValueError, str(tmp_path / CONFIG), *parts)


A = "base_model.model.gpt_neox.layers.1.attention.dense.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(A), f"lacks tensor {A} (1 of 24 are missing)"),
        (lambda t: t.update({"base_model.model.embed_out.weight": t[A]}), "base_model.model.embed_out.weight"),
        (lambda t: t.update({A: t[A][:2].copy()}), f"tensor {A} in "),
        (lambda t: t.update({A: t[A].T.copy()}), "is F32 (36, 3); by adapter_config.json and the model it would be"),
        (lambda t: t.update({A: t[A].astype(np.int32)}), "is I32 (3, 36)"),
    ],
    ids=["missing", "extra", "rank", "transposed", "integers"],
)
def test_tensors_that_do_not_fit(good: Path, tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    tensors = load_file(good / WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / WEIGHTS)
    assert_refused(tmp_path, "gpt_neox", ValueError, str(tmp_path / WEIGHTS), message)


def test_files_that_cannot_be_read(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-100])
    assert_refused(tmp_path, "gpt_neox", ValueError, str(tmp_path / WEIGHTS), "is cut off or no safetensors file")
    (tmp_path / CONFIG).write_text("{")
    assert_refused(tmp_path, "gpt_neox", ValueError, str(tmp_path / CONFIG), "is not JSON")
    (tmp_path / CONFIG).write_text("[]")
    assert_refused(tmp_path, "gpt_neox", ValueError, str(tmp_path / CONFIG), "must hold an object")
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    assert_refused(tmp_path, "gpt_neox", FileNotFoundError, f"no {WEIGHTS} in {tmp_path}", "adapter_model.bin")
    assert_refused(tmp_path / "nowhere", "gpt_neox", FileNotFoundError, "nowhere")


def test_an_adapter_of_another_model(good: Path) -> None:
    assert_refused(good, "gemma2", ValueError, "target_modules", "names no linear map of this model", "'q_proj'")
    wider = pair("gpt_neox", ffw_dim=48)[1]
    with pytest.raises(ValueError, match=r"dense_4h_to_h.lora_A.weight in .* is F32 \(3, 40\); .* \(3, 48\)"):
        load_adapter(wider, good)
    deeper = pair("gpt_neox", num_layers=4)[1]
    with pytest.raises(ValueError, match=r"lacks tensor base_model.model.gpt_neox.layers.3.*\(8 of 32 are missing\)"):
        load_adapter(deeper, good)
    shallower = pair("gpt_neox", num_layers=2)[1]
    with pytest.raises(ValueError, match=r"tensor base_model.model.gpt_neox.layers.2.* has no place in this model"):
        load_adapter(shallower, good)


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("gpt_neox")

    def full_disk(*args: Any, **options: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full_disk)
        with pytest.raises(OSError, match="no space left"):
            save_adapter(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
    save_adapter(model, tmp_path / "adapter")
    before = (tmp_path / "adapter" / WEIGHTS).read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        save_adapter(adapted("gpt_neox", ("o",)), tmp_path / "adapter")
    assert (tmp_path / "adapter" / WEIGHTS).read_bytes() == before
    with pytest.raises(ValueError, match="carries no adapter"):
        save_adapter(pair("gpt_neox")[1], tmp_path / "none")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_an_abstract_model_can_be_given_an_adapter(good: Path) -> None:
    _, model = pair("gpt_neox")
    abstract = nnx.eval_shape(lambda: nnx.clone(model))
    load_adapter(abstract, good)
    load_adapter(model, good)
    wanted = parameters(lora.adapter_state(model))
    for name, value in parameters(lora.adapter_state(abstract)).items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)
