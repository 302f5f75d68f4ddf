"""The programs of a GRPO phase, compiled for devices that need not be there, and what the devices hold meanwhile."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from c2s_jax.aot.chips import chip
from c2s_jax.aot.memory import compile_measured
from c2s_jax.aot.step import planned
from c2s_jax.config import grpo_options
from c2s_jax.data.by_length import bucket
from c2s_jax.generation import Sampler, Sampling
from c2s_jax.generation.decoding import Settings, Vocabulary
from c2s_jax.parallel import batch_sharding
from c2s_jax.rl import make_logprobs, make_update
from c2s_jax.rl.options import GRPOOptions
from c2s_jax.training import StatePlan, TrainState


def account_phases(config: ConfigDict, devices: list[jax.Device]) -> dict[str, Any]:
    """Memory of each program of a phase on one device, with what lies beside it.

    Prompts are as long as ``data.seq_len`` leaves beside ``grpo.max_completion_length``. Programs of a phase run one
    after the other; what a program is not given, such as the optimizer's state while completions are sampled, stays
    where it is and counts as ``resident``.

    Raises
    ------
    jax.errors.JaxRuntimeError
        What the compiler refuses, for want of memory among others.
    """
    mesh, plan, optimizer = planned(config, devices)
    options = grpo_options(config)
    vocabulary = dict(vocab_size=plan.config.vocab_size)
    weights = plan.abstract.eval_weights
    logprobs = make_logprobs(plan.graphdef, mesh, options, parts=config.accumulate, **vocabulary)
    update = make_update(
        plan.graphdef, optimizer, mesh, plan.shardings, options, accumulate=config.accumulate, **vocabulary
    )
    batch = _abstract_batch(config, options, options.completions // options.minibatches, mesh)
    sampler, arguments, settings = _rollout(config, options, plan, mesh)
    lowered = {
        "rollout": lambda: sampler.program.lower(weights, *arguments, settings=settings),
        "log-probabilities": lambda: logprobs.lower(weights, batch),
        "update": lambda: update.lower(plan.abstract, batch),
    }
    state, own = _bytes(plan.abstract), _bytes(weights)
    reference = _bytes(plan.abstract.params) if options.beta and plan.adapter is None else 0
    beside = {"rollout": state - own, "log-probabilities": state - own, "update": 0}
    peak = chip(devices[0])
    capacity = peak.hbm if peak else 0
    found: dict[str, dict[str, Any]] = {}
    for name, lower in lowered.items():
        began = time.monotonic()
        _, used = compile_measured(lower())
        resident = beside[name] + reference
        found[name] = {
            "hbm_bytes": used | {"resident": resident},
            "hbm_bytes_per_chip": used["total"] + resident,
            "fits": used["total"] + resident <= capacity,
            "compile_seconds": time.monotonic() - began,
        }
    return {
        "chip": peak.name if peak else devices[0].device_kind,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "completions": options.completions,
        "phases": found,
        "hbm_bytes_per_chip": max(one["hbm_bytes_per_chip"] for one in found.values()),
        "hbm_capacity_bytes": capacity,
        "fits": all(one["fits"] for one in found.values()),
    }


def _abstract_batch(config: ConfigDict, options: GRPOOptions, rows: int, mesh: Mesh) -> dict[str, Any]:
    """Of completions so long that each takes a row."""
    time, most = config.data.seq_len, options.max_completion_length
    shapes: dict[str, tuple[int, Any]] = dict.fromkeys(("tokens", "positions", "segment_ids"), (time, jnp.int32))
    shapes |= dict.fromkeys(("at", "owner", "completions"), (most, jnp.int32))
    more = ["mask", "sampled", "weights", "advantages"]
    more += ["old"] * (options.updates > 1) + ["reference"] * (options.beta > 0)
    shapes |= dict.fromkeys(more, (most, jnp.float32))
    at = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((rows, width), dtype, sharding=NamedSharding(mesh, PartitionSpec(at.spec[0])))
        for name, (width, dtype) in shapes.items()
    }


def _rollout(
    config: ConfigDict, options: GRPOOptions, plan: StatePlan, mesh: Mesh
) -> tuple[Sampler, tuple[Any, ...], Settings]:
    longest = config.data.seq_len - options.max_completion_length
    if longest < 1:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} leaves no room for a prompt beside "
            f"grpo.max_completion_length={options.max_completion_length}"
        )
    batch_size = config.grpo.rollout_batch or options.completions
    sampler = Sampler(plan.graphdef, stop_ids=(1,), batch_size=batch_size, mesh=mesh)
    rows = sampler.prompts_at_once(options.num_generations)
    sampling = Sampling(temperature=options.temperature)
    settings = Settings(
        sampler.stop_ids, 0, options.max_completion_length, sampling, options.num_generations, unstacked=False
    )

    def spread(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=NamedSharding(mesh, PartitionSpec()))
    tokens, per_row = spread((rows, bucket(longest)), jnp.int32), (rows,)
    inputs = (tokens, spread(per_row, jnp.int32), spread(per_row, jnp.bool_), spread(per_row, jnp.uint32), seed)
    return sampler, (inputs, Vocabulary(plan.config.vocab_size)), settings


def _bytes(tree: TrainState | Any) -> int:
    """Of a tree of abstract arrays, on one device."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
