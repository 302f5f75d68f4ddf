"""Runs that start from a Hugging Face folder: all parameters of a Gemma-2, an adapter on a Pythia."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from ml_collections import ConfigDict

from c2s_jax import initialize, train
from c2s_jax.config import base, mixture_task
from c2s_jax.models.hf import from_hf
from c2s_jax.parallel import make_mesh
from c2s_jax.text import load_tokenizer
from c2s_jax.training import Checkpoints
from tests.toy import named

STEPS = 4
SIZES = dict(vocab_size=2_048, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
TASKS = ("cell_type_annotation", "cell_type_conditioned_generation")


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(train, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    yield
    patch.undo()


def pythia(folder: Path, **changes: Any) -> Path:
    """A random GPT-NeoX in the folder's safetensors."""
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(**{**SIZES, "rotary_pct": 0.5, "max_position_embeddings": 128, **changes})
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythia(tmp_path_factory.mktemp("pythia"))


@pytest.fixture
def config(bundle: Any, weights: Path) -> ConfigDict:
    config = base("gpt_neox")
    config.update(steps=STEPS, batch_size=4, log_every=1, validate_every=4, validation_rows=4)
    config.init_from = str(weights)
    sizes = dict(vocab_size=2_048, embed_dim=32, ffw_dim=48, num_layers=2, num_heads=2, rotary_fraction=0.5)
    config.model.update(sizes)
    config.optimizer.update(learning_rate=1e-2, warmup_steps=1)
    config.data.update(corpus=bundle.corpus, tokenizer=bundle.tokenizer, seq_len=64, rows_per_block=8)
    config.data.tasks = TASKS
    config.data.mixture = ConfigDict({name: mixture_task(name, min_genes=4, max_genes=20) for name in TASKS})
    config.checkpoint.every = 2
    return config


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [x["train/loss"] for x in lines if "train/loss" in x]


def final(config: ConfigDict, workdir: Path) -> Any:
    """The state of the newest checkpoint."""
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    plan = initialize.plan_state(config, load_tokenizer(config.data.tokenizer), mesh)
    return Checkpoints(str(workdir), every=1).restore(initialize.state_to_restore(config, plan, mesh))[0]


def test_all_parameters_start_from_the_folder(config: ConfigDict, weights: Path, tmp_path: Path) -> None:
    config.optimizer.learning_rate = 1e-9
    train.train(config, str(tmp_path))
    given = named(nnx.state(from_hf(weights), nnx.Param))
    trained = named(final(config, tmp_path).params)
    assert given.keys() == trained.keys()
    for name, value in given.items():
        np.testing.assert_allclose(trained[name], value, rtol=0, atol=1e-6, err_msg=name)


def test_a_run_starts_from_a_run(config: ConfigDict, tmp_path: Path) -> None:
    train.train(config, str(tmp_path / "first"))
    config.init_from = str(tmp_path / "first")
    train.train(config, str(tmp_path / "second"))
    assert losses(tmp_path / "second")[0] < losses(tmp_path / "first")[0] - 0.1


def test_adapter(config: ConfigDict, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Only the adapter is trained and saved; an interrupted run ends as an uninterrupted one."""
    config.lora.update(rank=2, alpha=8.0, dropout=0.1, targets=("qkv", "down"))
    train.train(config, str(tmp_path / "whole"))
    said = capsys.readouterr().out
    assert "adapted by" in said
    assert "Attention: xla (" in said  # the choice of "auto", and why
    whole = losses(tmp_path / "whole")
    assert len(whole) == STEPS
    assert whole[-1] < whole[0]
    state = final(config, tmp_path / "whole")
    names = {name.split("'")[-2] for name in named(state.params)}
    assert names == {"lora_a", "lora_b"}
    given = named(nnx.state(from_hf(weights), nnx.Param))
    for name, value in named(state.frozen).items():
        np.testing.assert_array_equal(value, given[name], err_msg=name)

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "validate", stop)  # at step 4, after the checkpoint of step 2
        with pytest.raises(KeyboardInterrupt):
            train.train(config, str(tmp_path / "killed"))
    train.train(config, str(tmp_path / "killed"))
    assert losses(tmp_path / "killed") == whole
    for name, value in named(state.params).items():
        np.testing.assert_array_equal(named(final(config, tmp_path / "killed").params)[name], value, err_msg=name)


def test_adapter_on_quantized_weights(config: ConfigDict, tmp_path: Path) -> None:
    sizes = dict(hidden_size=128, intermediate_size=192)
    config.init_from = str(pythia(tmp_path / "weights", **sizes))
    config.model.update(embed_dim=128, ffw_dim=192)
    config.lora.update(rank=2, quantize="nf4")
    train.train(config, str(tmp_path / "run"))
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    frozen = named(final(config, tmp_path / "run").frozen)
    kernels = {name: value for name, value in frozen.items() if "'kernel'" in name}
    assert len(kernels) == 4
    assert {value.dtype.name for value in kernels.values()} == {"uint8"}


def test_quantized_weights_cannot_be_trained(config: ConfigDict, tmp_path: Path) -> None:
    config.lora.quantize = "int8"
    with pytest.raises(ValueError, match=r"kernels in int8 cannot be trained.*lora\.rank"):
        train.train(config, str(tmp_path))


def test_another_architecture_is_refused(config: ConfigDict, tmp_path: Path) -> None:
    config.model.parallel_residual = False
    with pytest.raises(ValueError, match="parallel_residual: True, not False"):
        train.train(config, str(tmp_path))


def test_adapter_without_weights_is_refused(config: ConfigDict, tmp_path: Path) -> None:
    config.init_from = ""
    config.lora.rank = 2
    with pytest.raises(ValueError, match=r"lora.rank=2 .* init_from"):
        train.train(config, str(tmp_path))


def test_tokenizer_larger_than_the_vocabulary_is_refused(config: ConfigDict, tmp_path: Path) -> None:
    config.model.vocab_size = 1_000
    with pytest.raises(ValueError, match=r"the tokenizer has 1,[0-9]{3} pieces, more than model.vocab_size=1,000"):
        train.train(config, str(tmp_path))
