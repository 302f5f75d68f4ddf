"""The command line: what is converted is the same model, and what goes wrong leaves nothing behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from ml_collections import ConfigDict

import c2s_jax
from c2s_jax import workdirs
from c2s_jax.config import base, plain
from c2s_jax.convert import main
from c2s_jax.initialize import new_state, plan_state
from c2s_jax.models import Decoder, lora
from c2s_jax.models.export import load_export
from c2s_jax.models.hf import from_hf
from c2s_jax.models.peft import load_adapter, save_adapter
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from c2s_jax.training import Checkpoints
from tests.models.hf_checkpoints import edit_config, hf_logits, reopened, stored
from tests.text.conftest import make_gene_names, make_sentences, train_model
from tests.toy import named

SIZES = dict(vocab_size=408, embed_dim=16, ffw_dim=32, num_layers=2, num_heads=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train_model(path, make_sentences(make_gene_names(60)), vocab_size=400)


@pytest.fixture(scope="module")
def pythia(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A Hugging Face folder as it may be found: weights, a tokenizer, a longer context than usual."""
    folder = tmp_path_factory.mktemp("pythia")
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=408,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        eos_token_id=1,
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    return folder


def weights(model: Decoder) -> dict[str, Any]:
    return named(nnx.state(model, nnx.Param))


def assert_equal(found: Decoder, wanted: Any) -> None:
    found, wanted = weights(found), wanted if isinstance(wanted, dict) else weights(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def tokens() -> Any:
    return np.random.default_rng(0).integers(0, 400, (2, 12), np.int32)


def test_there_and_back(pythia: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    command = [sys.executable, "-m", "c2s_jax.convert", "from-hf", str(pythia), str(ours)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr  # the progress bar
    assert done.stdout.endswith(f"Wrote {ours}\n")
    assert_equal(load_export(ours), from_hf(pythia))
    main(["to-hf", str(ours), str(theirs)])
    for name, value in stored(pythia).items():
        assert stored(theirs)[name].tobytes() == value.tobytes()
    config = reopened(theirs).config
    assert (config.max_position_embeddings, config.eos_token_id) == (8192, 1)
    assert load_tokenizer(theirs).fingerprint == load_tokenizer(pythia).fingerprint
    assert transformers.AutoTokenizer.from_pretrained(theirs)("CD3D")["input_ids"]


def test_a_repository_of_the_hub(pythia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, here from the hub's own cache: weights, settings and tokenizer."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(pythia, tmp_path / "models--someone--tiny" / "snapshots" / "1234")
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("1234")
    main(["from-hf", "someone/tiny", str(tmp_path / "out")])
    assert_equal(load_export(tmp_path / "out"), from_hf(pythia))
    assert load_tokenizer(tmp_path / "out").fingerprint == load_tokenizer(pythia).fingerprint
    assert c2s_jax.load("someone/tiny").context == 8192


def test_dtypes(pythia: Path, tmp_path: Path) -> None:
    main(["from-hf", str(pythia), str(tmp_path / "ours"), "--dtype=bfloat16"])
    assert_equal(load_export(tmp_path / "ours"), from_hf(pythia, dtype="bfloat16"))
    assert load_export(tmp_path / "ours").config.dtype == "bfloat16"
    main(["to-hf", str(pythia), str(tmp_path / "theirs"), "--dtype=bfloat16"])
    assert {v.dtype.name for v in stored(tmp_path / "theirs").values()} == {"bfloat16"}


# --------------------------------------------------------------------------------------------------------- runs


def run(workdir: Path, tokenizer: Path, **changes: Any) -> tuple[ConfigDict, Any]:
    """A run's folder after step 3, and its state; nothing in it is what it was at the start."""
    config = base(changes.pop("architecture", "gemma2"))
    config.model.update(SIZES)
    if config.model.architecture == "gemma2":
        config.model.update(num_kv_heads=1, head_dim=8, query_pre_attn_scalar=3.0, attn_softcap=1.0, sliding_window=5)
    config.data.update(corpus="elsewhere", tokenizer=str(tokenizer), seq_len=9000)
    config.update(changes)
    workdirs.claim(str(workdir), plain(config))
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    plan = plan_state(config, load_tokenizer(tokenizer), mesh)
    state = new_state(config, plan, mesh)
    changed = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), state.params)
    ema = None if state.ema is None else jax.tree.map(lambda x: x - 0.3, changed)
    state = state._replace(params=changed, ema=ema)
    checkpoints = Checkpoints(str(workdir), every=1)
    meta = {"config": plain(config), "tokenizer": load_tokenizer(tokenizer).fingerprint}
    checkpoints.save(3, state, {"row": 0}, meta)
    checkpoints.close()
    return plan, state


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run(tokenizer: Path, tmp_path: Path, ema: float) -> None:
    """Of the newest checkpoint, the running mean where one is kept; transformers gives the same logits."""
    plan, state = run(tmp_path / "run", tokenizer, ema_decay=ema)
    wanted = nnx.merge(plan.graphdef, state.ema if ema else state.params)
    main(["to-hf", str(tmp_path / "run"), str(tmp_path / "out")])
    assert_equal(from_hf(tmp_path / "out"), wanted)
    theirs = reopened(tmp_path / "out")
    np.testing.assert_allclose(wanted(tokens()), hf_logits(theirs, tokens()), rtol=0, atol=1e-4)
    assert theirs.config.max_position_embeddings == 9000
    assert theirs.config.eos_token_id == load_tokenizer(tokenizer).eos_id


def test_a_run_of_an_adapter(pythia: Path, tokenizer: Path, tmp_path: Path) -> None:
    """Is merged into the weights it started from."""
    plan, state = run(
        tmp_path / "run",
        tokenizer,
        architecture="gpt_neox",
        init_from=str(pythia),
        lora={"rank": 2, "alpha": 3.0},
    )
    adapted = nnx.merge(plan.graphdef, nnx.merge_state(state.params, state.frozen))
    main(["to-hf", str(tmp_path / "run"), str(tmp_path / "out")])
    theirs = hf_logits(reopened(tmp_path / "out"), tokens())
    np.testing.assert_allclose(adapted(tokens()), theirs, rtol=0, atol=1e-4)
    assert np.abs(theirs - hf_logits(reopened(pythia), tokens())).max() > 0.1
    assert reopened(tmp_path / "out").config.max_position_embeddings == 9000
    main(["to-peft", str(tmp_path / "run"), str(tmp_path / "adapter")])
    base = from_hf(pythia)
    load_adapter(base, tmp_path / "adapter")
    np.testing.assert_allclose(base(tokens()), adapted(tokens()), rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        pythia
    )


@pytest.mark.parametrize("exported", [True, False])
def test_merge_of_an_adapter(pythia: Path, tmp_path: Path, exported: bool) -> None:
    model = from_hf(pythia)
    lora.add(model, lora.LoRAConfig(rank=2, alpha=5.0), nnx.Rngs(1))
    for linear in lora.adapted(model):
        assert linear.lora_b is not None
        linear.lora_b[...] = 0.1 * jax.random.normal(jax.random.key(1), linear.lora_b[...].shape)
    save_adapter(model, tmp_path / "adapter")
    lora.merge(model)
    source = pythia
    if exported:
        main(["from-hf", str(pythia), str(source := tmp_path / "base")])
    main(["merge-lora", str(source), str(tmp_path / "out"), f"--adapter={tmp_path / 'adapter'}"])
    found = (load_export if exported else from_hf)(tmp_path / "out")
    for name, value in weights(model).items():
        np.testing.assert_allclose(weights(found)[name], value, rtol=0, atol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------------------- errors


def fails(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_errors(pythia: Path, tokenizer: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    fails(["to-peft", str(pythia), out], "is not the workdir of a training run")
    fails(["from-hf", str(tmp_path / "none"), out], "FATAL .*none is neither a folder nor the name of a")
    fails(["from-hf", str(pythia), str(pythia)], f"FATAL {pythia} exists already")
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    (empty / "config.json").write_text(json.dumps(plain(base())))
    fails(["to-hf", str(empty), out], "holds no whole checkpoint yet")
    broken = tmp_path / "broken"
    main(["from-hf", str(pythia), str(broken)])
    description = json.loads((broken / "model.json").read_text())
    for change, message in [
        ({"architecture": "llama"}, r"model\.json describes no model of this version: 'llama'"),
        ({"config": {**description["config"], "novel": 1}}, r"model\.json describes no model .*'novel'"),
        (
            {"config": {**description["config"], "ffw_dim": 64}},
            r"params has blocks\.ffw\.down\.kernel .* by model\.json",
        ),
    ]:
        (broken / "model.json").write_text(json.dumps({**description, **change}))
        fails(["to-hf", str(broken), out], f"FATAL .*{message}")
    (broken / "model.json").write_text("{")
    fails(["to-hf", str(broken), out], r"model\.json is not a JSON file")
    assert not Path(out).exists()


def test_another_tokenizer_than_the_runs(tokenizer: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tokenizer.model"
    copy.write_bytes(tokenizer.read_bytes())
    run(tmp_path / "run", copy)
    train_model(copy, make_sentences(make_gene_names(50)), vocab_size=390)
    fails(["to-hf", str(tmp_path / "run"), str(tmp_path / "out")], "was trained with tokenizer")


def test_killed_on_the_way(pythia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error late in the writing leaves no folder."""
    edit_config(pythia, attention_dropout=0.0)
    monkeypatch.setattr("c2s_jax.models.hf.config_to_hf", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["to-hf", str(pythia), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_commands_must_be_known(capsys: pytest.CaptureFixture) -> None:
    for arguments in ([], ["to-onnx", "a", "b"], ["merge-lora", "a", "b"], ["from-hf", "a", "b", "--dtype=int8"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    assert "--adapter" in capsys.readouterr().err
