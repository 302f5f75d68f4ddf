"""Configurations that are refused before anything is built."""

import pytest

from c2s_jax import config as configs
from c2s_jax.checks import check


def runnable():
    """The defaults and a model."""
    config = configs.base()
    config.model.update(embed_dim=16, ffw_dim=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8)
    config.model.query_pre_attn_scalar = 8.0
    return config


def refused(config, change, message):
    """A configuration that is all right until it is changed."""
    check(config, devices=1)
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        check(config, devices=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint.every": 0}, r"checkpoint\.every=0 must be at least 1"),
        ({"checkpoint.keep": 0}, r"checkpoint\.keep=0 must be at least 1"),
        ({"checkpoint.keep_every": 1500}, r"checkpoint\.keep_every=1500 must be a multiple of checkpoint\.every=1000"),
        ({"checkpoint.keep_best": 1, "validate_every": 300}, r"keep_best=1 needs steps with both"),
        ({"checkpoint.keep_best": 1, "checkpoint.best": "loss"}, r"best='loss' is no metric .* are validation/loss, "),
        ({"distributed.heartbeat_seconds": 0}, r"distributed\.heartbeat_seconds=0"),
        ({"watchdog.seconds": -1.0}, r"watchdog\.seconds=-1\.0 must not be negative"),
        ({"transfer_guard": "deny"}, r"transfer_guard='deny' is not one of allow, log, disallow"),
        ({"guards.spike": "on"}, r"guards\.spike='on'"),
        ({"profile.steps": (3,)}, r"profile\.steps=\(3,\)"),
        ({"model.num_layers": 0}, r"model\.num_layers is not given"),
        ({"model.param_dtype": "bfloat16"}, r"model\.param_dtype='bfloat16' rounds .* model\.dtype=\"bfloat16\""),
        ({"validation_rows": 0}, r"validation_rows=0 must be at least 1"),
        ({"ema_decay": 1.0}, r"ema_decay=1\.0 must be at least 0, which is off, and below 1"),
        ({"ema_decay": -0.5}, r"ema_decay=-0\.5"),
        ({"optimizer.clip_norm": -1.0}, r"optimizer\.clip_norm=-1\.0 must not be negative"),
        ({"optimizer.learning_rate": -1e-3}, r"optimizer\.learning_rate=-0\.001 must not be negative"),
    ],
)
def test_nonsense_is_refused(change, message):
    config = runnable()
    refused(config, change, message)


def test_the_best_by_the_loss_of_a_task():
    config = runnable()
    config.checkpoint.update(keep_best=1, best="validation/loss/cell_type_annotation")
    check(config, devices=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guards.spike": "skip"}, r"guards\.spike='skip': .* set guards\.spike=\"off\""),
        ({"guards.nonfinite": "rewind"}, r"guards\.nonfinite=\"rewind\": .* set it to \"skip\" or \"stop\""),
        ({"grpo.max_completion_length": 8192}, r"max_completion_length=8192 must be below data\.seq_len=8192"),
        ({"checkpoint.keep_best": 2}, r"checkpoint\.keep_best=2: objective=\"grpo\" validates nothing"),
    ],
)
def test_what_grpo_could_not_follow_is_refused(change, message):
    config = runnable()
    config.objective, config.init_from = "grpo", "RUN"
    refused(config, change, message)


def test_frozen_weights_may_be_in_half_precision():
    config = runnable()
    config.model.param_dtype, config.lora.rank, config.init_from = "bfloat16", 4, "RUN"
    check(config, devices=1)


@pytest.mark.parametrize(("sequence", "seq_len"), [(2, 384), (-1, 1024), (0, 1024)])
def test_rows_that_devices_cannot_share(sequence: int, seq_len: int) -> None:
    config = runnable()
    config.mesh.sequence, config.data.seq_len = sequence, seq_len
    with pytest.raises(ValueError, match=rf"mesh\.sequence={sequence} must be 1, or .* of the data\.seq_len={seq_len}"):
        check(config, devices=1)
    config.mesh.sequence, config.data.seq_len = 2, 512
    check(config, devices=1)
