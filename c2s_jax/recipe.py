"""What the recipes of ``configs/`` have in common: fine-tuning of a released model, and the same for two CPU cores."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task, overrides
from c2s_jax.models import gemma2, gpt_neox

BASE = "vandijklab/C2S-Scale-Gemma-2-2B"

# From scratch: no released model has so few parameters. The shape is a rung of configs/scaling.py, 128x4, so that
# --config.init_from=runs/scaling/scaling_128x4 starts from that one.
SMALL: dict[str, Any] = {
    "init_from": "",
    "steps": 500,
    "batch_size": 16,
    "validate_every": 50,
    "validation_rows": 32,
    "checkpoint.every": 250,
    "checkpoint.keep": 1,
    "data.seq_len": 256,
    "data.rows_per_block": 256,
    "data.augmentation.shuffle_ties": True,
    "data.augmentation.gene_dropout": 0.2,
    "model.vocab_size": 0,
    "model.embed_dim": 128,
    "model.ffw_dim": 384,
    "model.num_layers": 4,
    "model.num_heads": 4,
    "model.num_kv_heads": 2,
    "model.head_dim": 32,
    "model.query_pre_attn_scalar": 32.0,
    "model.sliding_window": 128,
    "model.attention_chunk": 128,
    "model.dtype": "float32",
    "model.remat": "dots",
    "optimizer.learning_rate": 1.5e-3,
    "optimizer.warmup_steps": 40,
    "optimizer.weight_decay": 0.1,
    "evaluation.max_cells": 600,
}
# Recipes on Pythia. The model from scratch is the same for tuning and for GRPO, which starts from the tuned one.
PYTHIA_SMALL: dict[str, Any] = {
    "accumulate": 1,
    "model.vocab_size": 0,
    "model.embed_dim": 128,
    "model.ffw_dim": 512,
    "model.num_layers": 4,
    "model.num_heads": 4,
    "model.dtype": "float32",
    "model.remat": "dots",
    "model.attention_chunk": 128,
}
PYTHIA_TUNED_SMALL = PYTHIA_SMALL | {
    "init_from": "",
    "batch_size": 16,
    "data.rows_per_block": 256,
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 50,
    "optimizer.weight_decay": 0.1,
    "validate_every": 50,
    "validation_rows": 32,
    "checkpoint.every": 50,
}
PYTHIA_GRPO_SMALL = PYTHIA_SMALL | {
    "optimizer.learning_rate": 5e-4,
    "optimizer.warmup_steps": 5,
    "optimizer.weight_decay": 0.0,
    "log_every": 1,
}
SMALL_GENES = {"min_genes": 48, "max_genes": 180}
NOT_TUNED = "First choices throughout; nothing was tuned."


def fine_tuning(name: str, tasks: dict[str, dict[str, Any]], small: dict[str, Any] | None = None) -> ConfigDict:
    """Supervised fine-tuning of C2S-Scale-Gemma-2-2B with the paper's rates, and a small scale from scratch.

    Learning rate 1e-5, weight decay 0.01 and 64 examples a batch are what the paper (bioRxiv 2025.04.14.648850) gives
    for captions; its other fine-tunings name none. Eight packed rows of 8,192 tokens hold about as many examples.

    Parameters
    ----------
    name
        Of the run.
    tasks
        Settings of each task's part in the mixture (``data.MixtureTask``); the loss is that of the answer unless said.
    small
        Further values of ``config.small``, by dotted key.
    """
    config = base()
    config.name, config.init_from = name, BASE
    config.model.update(gemma2.RELEASED["2b"], dtype="bfloat16", remat="full")
    config.steps, config.batch_size = 3_000, 8
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100, weight_decay=0.01)
    config.validate_every, config.checkpoint.every = 250, 250
    config.evaluation.at_end = True
    config.data.tasks = tuple(tasks)
    settings = {task: {"loss": "response", **given} for task, given in tasks.items()}
    config.data.mixture = ConfigDict({task: mixture_task(task, **given) for task, given in settings.items()})
    less = {f"data.mixture.{task}.{key}": value for task in tasks for key, value in SMALL_GENES.items()}
    smaller = SMALL | less | (small or {})
    config.small = overrides(smaller | {"evaluation.max_genes": max(smaller[_most(task)] for task in tasks)})
    config.evaluation.max_genes = max(config.data.mixture[task].max_genes for task in tasks)  # as training has them
    config.notes = (NOT_TUNED,)
    return config


def _most(task: str) -> str:
    return f"data.mixture.{task}.max_genes"


def pythia(name: str, tasks: Sequence[str], small: dict[str, Any], **settings: Any) -> ConfigDict:
    """A run of Pythia-1B on some tasks, with a small scale from scratch.

    Parameters
    ----------
    name
        Of the run.
    tasks
        Of the mixture, each with ``settings`` (``data.MixtureTask``).
    small
        Values of ``config.small``, by dotted key.
    """
    config = base("gpt_neox")
    config.name = name
    config.model.update(gpt_neox.RELEASED["1b"], dtype="bfloat16", remat="full")
    config.data.tasks = tuple(tasks)
    config.data.mixture = ConfigDict({task: mixture_task(task, **settings) for task in tasks})
    config.small = overrides(small)
    return config


def from_scratch(*tasks: str, weight: float = 10.0) -> dict[str, Any]:
    """Values of ``config.small`` by which tasks with short answers also teach what precedes the answer.

    A model from scratch has to learn what cells are like; the answer's tokens count ``weight`` times as much.
    """
    return {
        f"data.mixture.{task}.{key}": value
        for task in tasks
        for key, value in (("loss", "all"), ("response_weight", weight))
    }
