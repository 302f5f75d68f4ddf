"""What is wrong with a checkpoint is said with the file and the tensor or key."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from c2s_jax.models import hf
from c2s_jax.models.hf import from_hf
from c2s_jax.models.hub import local_folder
from c2s_jax.models.weights import load_config, load_weights
from tests.models.hf_checkpoints import GEMMA, KINDS, edit_config, hf_model, stored

Tensors = dict[str, NDArray]
K = "model.layers.1.self_attn.k_proj.weight"
QKV = "gpt_neox.layers.2.attention.query_key_value.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        hf_model(kind).save_pretrained(folder)
    return folders


@pytest.fixture
def copy(originals: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Function that copies a checkpoint, its tensors changed."""

    def make(kind: str, change: Callable[[Tensors], Any] | None = None) -> Path:
        folder = tmp_path / kind
        shutil.copytree(originals[kind], folder)
        if change:
            tensors = stored(folder)
            change(tensors)
            save_file(tensors, folder / "model.safetensors")
        return folder

    return make


def refused(folder: Path, *parts: str, kind: type[Exception] = ValueError) -> None:
    """``from_hf`` raises an error that says all of ``parts``."""
    with pytest.raises(kind) as caught:
        from_hf(folder)
    for part in (str(folder), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), [("gemma2", K), ("gpt_neox", QKV), ("gpt_neox", "embed_out.weight")])
def test_missing_tensor(copy: Callable[..., Path], kind: str, name: str) -> None:
    refused(copy(kind, lambda t: t.pop(name)), "lacks 1 of the", name)


@pytest.mark.parametrize(("kind", "name"), [("gemma2", K), ("gpt_neox", QKV)])
def test_tensor_too_many(copy: Callable[..., Path], kind: str, name: str) -> None:
    """For instance a layer more than config.json says, or a bias."""
    for extra in (re.sub(r"layers\.\d", "layers.7", name), name.replace("weight", "scales")):
        folder = copy(kind, lambda t, extra=extra: t.update({extra: t[name].copy()}))
        refused(folder, f"tensor {extra} in", "model.safetensors", "no place")
        shutil.rmtree(folder)


def test_wrong_shape(copy: Callable[..., Path]) -> None:
    folder = copy("gemma2", lambda t: t.update({K: t[K].T.copy()}))
    refused(folder, f"tensor {K} in", "model.safetensors has shape (24, 16)", "(16, 24)")


def test_wrong_dtype(copy: Callable[..., Path]) -> None:
    folder = copy("gemma2", lambda t: t.update({K: t[K].astype(np.int8)}))
    refused(folder, f"tensor {K} in", "model.safetensors is I8", "F32, BF16, F16")


def test_output_table_of_gemma(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is stored, too, it must be the embedding; the last row counts."""
    monkeypatch.setattr(hf, "COMPARED_ROWS", 40)  # several pieces
    same = copy("gemma2", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    from_hf(same)
    shutil.rmtree(same)

    def change(t: Tensors) -> None:
        t["lm_head.weight"] = t["model.embed_tokens.weight"].copy()
        t["lm_head.weight"][-1, -1] += 1e-3

    refused(copy("gemma2", change), "tensor lm_head.weight in", "differs from model.embed_tokens.weight")
    shutil.rmtree(same)
    wide = copy("gemma2", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"][:-1].copy()}))
    refused(wide, "tensor lm_head.weight in", "differs from model.embed_tokens.weight")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("gpt_neox", "gpt_neox.layers.0.attention.bias", np.tril(np.ones((1, 1, 9, 9), bool))),
        ("gpt_neox", "gpt_neox.layers.2.attention.masked_bias", np.array(-1e9, np.float32)),
        ("gpt_neox", "gpt_neox.layers.1.attention.rotary_emb.inv_freq", np.ones(4, np.float32)),
        ("gemma2", "model.layers.3.self_attn.rotary_emb.inv_freq", np.ones(4, np.float32)),
    ],
)
def test_buffers_of_older_files_are_passed_over(
    copy: Callable[..., Path], originals: dict[str, Path], kind: str, name: str, value: NDArray
) -> None:
    folder = copy(kind, lambda t: t.update({name: value}))
    assert from_hf(folder).config == from_hf(originals[kind]).config


def test_config_file(copy: Callable[..., Path]) -> None:
    folder = copy("gemma2")
    edit_config(folder, attention_bias=True)
    refused(folder, "config.json: attention_bias=True")
    (folder / "config.json").write_text("{")
    refused(folder, "config.json: Expecting")
    (folder / "config.json").unlink()
    refused(folder, "config.json", kind=FileNotFoundError)


def test_weights_of_another_configuration(copy: Callable[..., Path]) -> None:
    """A run may choose dtypes and rematerialisation, not the architecture."""
    folder = copy("gemma2")
    run = load_config(folder, dtype="bfloat16", param_dtype="float32", remat="full", dropout=0.1)
    assert load_weights(folder, run)["embedding"].get_value().dtype == "float32"
    with pytest.raises(
        ValueError, match=r"another model.*:\n  sliding_window: 8, not 4096\n  norm_eps: 0.05, not 1e-06$"
    ):
        load_weights(folder, type(run)(**{**vars(run), "sliding_window": 4096, "norm_eps": 1e-6}))
    with pytest.raises(ValueError, match="holds a GPTNeoXConfig; the configuration asks for Gemma2Config"):
        load_weights(copy("gpt_neox"), GEMMA)


def test_a_path_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for source in (tmp_path / "file", tmp_path / "none", "three/part/name", "./there"):
        with pytest.raises(FileNotFoundError, match=r"neither a folder nor the name of a Hugging Face repository"):
            local_folder(source)


def test_hub_repositories(originals: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of the form owner/name are looked up by the hub's own library, here in its cache alone."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="someone/tiny-model is no folder here, and Hugging Face's repository"):
        from_hf("someone/tiny-model")
    repository = tmp_path / "models--someone--tiny-model"
    shutil.copytree(originals["gpt_neox"], repository / "snapshots" / "1234")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1234")
    assert from_hf("someone/tiny-model").config == from_hf(originals["gpt_neox"]).config


def test_index_and_files(copy: Callable[..., Path]) -> None:
    """The folder's own errors come through (see test_safetensors_files)."""
    folder = copy("gemma2")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model-00001-of-00001.safetensors", kind=FileNotFoundError)
