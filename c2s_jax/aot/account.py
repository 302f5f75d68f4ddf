"""What a compiled step costs: memory, FLOPs, traffic, and the time that these bound."""

import re
from typing import Any

from ml_collections import ConfigDict

from c2s_jax.aot.chips import chip
from c2s_jax.aot.flops import mean_visible_keys, training_flops_per_token
from c2s_jax.aot.hlo import Counts
from c2s_jax.aot.hlo import Program as Hlo
from c2s_jax.aot.step import Program
from c2s_jax.models import num_parameters

# Products that the splash kernels make of a query and a key: forward q·k, p·v; backward q·k, dO·v, ds·k for dq, and
# q·k, p·dO, dO·v, ds·q for dk and dv.
KERNEL_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}


def account(config: ConfigDict, program: Program, tokens: float) -> dict[str, Any]:
    """Everything that ``c2s_jax.compile`` reports of one step.

    Parameters
    ----------
    tokens
        To train on in all, for days and chip-hours.
    """
    device = program.mesh.devices.flat[0]
    peak = chip(device)
    if peak is None:
        raise ValueError(f"no peaks are known for {device.device_kind}; add it to c2s_jax.aot.chips")
    chips, time = program.mesh.size, config.data.seq_len
    used = program.memory
    counts = Hlo(program.compiled.as_text() or "").count()
    per_chip = program.rows * time / chips
    needed = training_flops_per_token(program.plan.config, time, frozen=program.plan.adapter is not None)
    kernel_flops = _kernel_flops(counts, program, time)
    executed = counts.matmul_flops + kernel_flops
    bounds = {
        "compute": (executed - counts.int8_flops + counts.int8_flops / peak.int8) / peak.flops,
        "hbm": counts.memory_bytes / peak.hbm_bandwidth,
        "interconnect": sum(counts.collective_bytes.values()) / peak.interconnect,
    }
    seconds = max(bounds.values())
    steps = tokens / (per_chip * chips)
    return {
        "chip": peak.name,
        "chips": chips,
        "mesh": dict(program.mesh.shape),
        "rows_per_chip": program.rows / chips,
        "seq_len": time,
        "parameters": num_parameters(program.plan.abstract.params),
        "hbm_bytes_per_chip": used["total"],
        "hbm_capacity_bytes": peak.hbm,
        "hbm_bytes": used,
        "fits": used["total"] <= peak.hbm,
        "tokens_per_chip": per_chip,
        "flops_per_token": needed,
        "matmul_flops": counts.matmul_flops,
        "int8_flops": counts.int8_flops,
        "attention_flops": kernel_flops,
        "memory_bytes": counts.memory_bytes,
        "collective_bytes": dict(counts.collective_bytes),
        "bounds_seconds": bounds,
        "step_seconds_estimate": seconds,
        "mfu_bound": needed * per_chip / (seconds * peak.flops),
        "mfu_bound_flops_only": needed * per_chip / executed,
        "xla_cycles": counts.cycles,
        "mfu_xla_cycles": needed * per_chip / ((counts.cycles / peak.clock + kernel_flops / peak.flops) * peak.flops),
        "tokens": tokens,
        "days": steps * seconds / 86_400,
        "chip_hours": steps * seconds * chips / 3_600,
        "compile_seconds": program.seconds,
    }


def _kernel_flops(counts: Counts, program: Program, time: int) -> float:
    """Of attention kernels, which the compiler's text does not show: products of the queries with keys they see."""
    config = program.plan.config
    keys = mean_visible_keys(config, time)
    shards = program.mesh.size // program.mesh.shape["tensor"]  # of tokens
    heads = config.num_heads / program.mesh.shape["tensor"]
    product = 2.0 * program.rows / shards * time * keys * heads * config.head_dim
    total = 0.0
    for name, calls in counts.kernels.items():
        kind = re.match(r"splash_mha_(fwd|dq|dkv)", name)
        total += calls * KERNEL_PRODUCTS[kind[1]] * product if kind else 0.0
    return total
