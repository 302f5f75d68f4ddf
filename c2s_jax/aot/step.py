"""The run's own training step, compiled for devices that need not be there."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2s_jax.aot.memory import compile_measured
from c2s_jax.config import lora_config, model_config
from c2s_jax.ops import choose_backend
from c2s_jax.parallel import batch_sharding, make_mesh
from c2s_jax.training import StatePlan, make_optimizer, make_train_step

COLUMNS = ("tokens", "targets", "positions", "segment_ids", "task_ids", "loss_weights")


class Program(NamedTuple):
    """A compiled step of ``rows`` rows, bytes of a device by kind, the plan of its state, and seconds of compiling."""

    compiled: jax.stages.Compiled
    memory: dict[str, int]
    plan: StatePlan
    mesh: Mesh
    rows: int
    seconds: float


def compile_step(config: ConfigDict, devices: list[jax.Device]) -> Program:
    """Compile the training step that ``c2s_jax.train`` would run.

    Raises
    ------
    jax.errors.JaxRuntimeError
        What the compiler refuses, for want of memory among others.
    """
    mesh, plan, optimizer = planned(config, devices)
    step = make_train_step(
        plan.graphdef,
        optimizer,
        mesh,
        plan.shardings,
        n_tasks=len(config.data.tasks),
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        dropout_seed=config.seed if config.model.dropout or config.lora.dropout else None,
    )
    began = time.monotonic()
    compiled, memory = compile_measured(step.lower(plan.abstract, abstract_batch(config, mesh)))
    return Program(compiled, memory, plan, mesh, config.batch_size, time.monotonic() - began)


def planned(
    config: ConfigDict, devices: list[jax.Device]
) -> tuple[Mesh, StatePlan, optax.GradientTransformationExtraArgs]:
    """Mesh, state and optimizer of a run on these devices."""
    mesh = make_mesh(config.mesh, devices)
    model = model_config(config)
    if model.attention == "auto":
        softcap = getattr(model, "attn_softcap", None)
        choice = choose_backend(devices[0], head_dim=model.head_dim, dtype=model.dtype, softcap=softcap)
        model = dataclasses.replace(model, attention=choice.backend)
    optimizer = make_optimizer(config)
    plan = StatePlan(
        model,
        optimizer,
        mesh,
        ema=config.ema_decay > 0,
        adapter=lora_config(config),
        quantized=config.lora.quantize or None,
        products=config.products,
    )
    return mesh, plan, optimizer


def abstract_batch(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """One step's packed rows, shapes only."""
    shape, sharding = (config.batch_size, config.data.seq_len), batch_sharding(mesh)
    dtypes = {name: jnp.float32 if name == "loss_weights" else jnp.int32 for name in COLUMNS}
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, dtype in dtypes.items()}
