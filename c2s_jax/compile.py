"""Compile a run's training step for a TPU slice that is not there: does it fit, how fast can it be, what will it cost?

    python -m c2s_jax.compile --config=configs/27b.py --topology=v5p:4x4x4 [--json=FILE] [--tokens=1e11] [--tune]

Needs the compiler (``pip install "c2s_jax[tpu]"``), no TPU. Ends with status 1 when the step does not fit; then, and
with ``--tune``, other rematerialisation and accumulation are tried and the best that fits is named.
"""

import copy
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from c2s_jax import workdirs
from c2s_jax.aot import topology
from c2s_jax.aot.account import account
from c2s_jax.aot.chips import GIB, chip
from c2s_jax.aot.step import compile_step
from c2s_jax.config import check, parse_flags
from c2s_jax.models.decoder import REMAT_POLICIES

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
TOPOLOGY: Any = flags.DEFINE_string("topology", None, f"Slice to compile for: {topology.HELP}.")
ROWS = flags.DEFINE_integer("rows", None, "Rows a chip; sets config.batch_size.", lower_bound=1)
TOKENS = flags.DEFINE_float("tokens", None, "Tokens of the corpus, for days; by default steps × batch_size × seq_len.")
TUNE = flags.DEFINE_bool("tune", False, "Also try other remat policies, and name the fastest that fits.")
JSON = flags.DEFINE_string("json", None, "Write the report here, too.")


def report(config: ConfigDict, devices: list[jax.Device], tokens: float) -> dict[str, Any]:
    """Account of the step; ``fits`` is False and only memory is told where the compiler gave up."""
    about = settings(config)
    try:
        return about | account(config, compile_step(config, devices), tokens)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        peak = chip(devices[0])
        used = re.search(r"Used ([\d.]+)([KMGT])", str(error))
        total = int(float(used[1]) * 1024 ** ("KMGT".index(used[2]) + 1)) if used else None
        return about | {
            "chip": peak.name if peak else devices[0].device_kind,
            "chips": len(devices),
            "fits": False,
            "hbm_bytes_per_chip": total,
            "hbm_capacity_bytes": peak.hbm if peak else None,
        }


def settings(config: ConfigDict) -> dict[str, Any]:
    """What was compiled, of what a report is compared by."""
    return {
        "name": config.name,
        "adapter": bool(config.lora.rank),
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "remat": config.model.remat,
    }


def variants(config: ConfigDict) -> Iterator[ConfigDict]:
    """Other ways to run the same batch: every remat policy, then gradient accumulation."""
    rows = config.batch_size
    for accumulate in (n for n in (config.accumulate, 2 * config.accumulate) if rows % n == 0):
        for remat in ("none", *REMAT_POLICIES):
            if (accumulate, remat) != (config.accumulate, config.model.remat):
                changed = copy.deepcopy(config)
                changed.accumulate, changed.model.remat = accumulate, remat
                yield changed


def tune(config: ConfigDict, devices: list[jax.Device], tokens: float) -> list[dict[str, Any]]:
    """Reports of all variants that keep the batch divisible, the fastest that fits first."""
    reports = []
    for variant in variants(config):
        try:
            check(variant, devices=len(devices))
        except ValueError:
            continue
        workdirs.say(f"Trying remat={variant.model.remat}, accumulate={variant.accumulate}")
        reports.append(report(variant, devices, tokens))
        workdirs.say(line(reports[-1]))
    return sorted(reports, key=lambda r: (not r["fits"], r.get("step_seconds_estimate", 0.0)))


def line(r: dict[str, Any]) -> str:
    """One report in one line."""
    used = "more" if r["hbm_bytes_per_chip"] is None else f"{r['hbm_bytes_per_chip'] / GIB:.1f}"
    fit = "fits" if r["fits"] else "does NOT fit"
    text = f"  {used} of {r['hbm_capacity_bytes'] / GIB:.1f} GiB a chip: {fit}"
    if "mfu_bound" in r:
        text += f"; at best {r['step_seconds_estimate']:.3f} s a step, MFU {r['mfu_bound']:.0%}"
    return text


def table(r: dict[str, Any]) -> str:
    """A report to read."""
    if "hbm_bytes" not in r:
        return line(r)
    used, bounds = r["hbm_bytes"], r["bounds_seconds"]
    kinds = ", ".join(f"{kind} {used[kind] / GIB:.2f}" for kind in ("arguments", "temporaries", "code"))
    moved = ", ".join(f"{kind} {n / 1e9:.2f}" for kind, n in sorted(r["collective_bytes"].items())) or "none"
    limits = ", ".join(f"{kind} {seconds:.3f}" for kind, seconds in bounds.items())
    rows = {
        "step": f"{r['name']}, {'LoRA' if r['adapter'] else 'all parameters'}, {r['rows_per_chip']:g} rows of "
        f"{r['seq_len']} tokens a chip, remat={r['remat']}",
        "chips": f"{r['chips']} × {r['chip']}, mesh {r['mesh']}",
        "memory": line(r).strip().split(";")[0],
        "  GiB": f"{kinds} (aliased {used['aliased'] / GIB:.2f})",
        "FLOPs": f"{r['flops_per_token'] / 1e9:.1f} G a token; executed a chip and step: products "
        f"{r['matmul_flops'] / 1e12:.1f} T, attention {r['attention_flops'] / 1e12:.1f} T",
        "traffic": f"HBM {r['memory_bytes'] / 1e9:.1f} GB; between chips, GB: {moved}",
        "bounds": f"seconds a step: {limits}",
        "estimate": f"{r['step_seconds_estimate']:.3f} s a step, all else hidden; MFU at most {r['mfu_bound']:.1%} "
        f"(products and attention alone {r['mfu_bound_flops_only']:.1%})",
        "corpus": f"{r['tokens']:.3g} tokens: {r['days']:.2f} days, {r['chip_hours']:,.0f} chip-hours at that speed",
        "compiled": f"in {r['compile_seconds']:.0f} s",
    }
    return "\n".join(f"{name:>9}  {text}" for name, text in rows.items())


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    config = copy.deepcopy(CONFIG.value)
    try:
        devices = topology.devices(TOPOLOGY.value)
        shards = len(devices) // max(1, config.mesh.tensor)
        if ROWS.value:
            config.batch_size = ROWS.value * len(devices) // max(1, config.mesh.tensor)
        check(config, devices=shards)
        tokens = TOKENS.value or float(config.steps) * config.batch_size * config.data.seq_len
        result = report(config, devices, tokens)
    except ValueError as error:
        raise SystemExit(f"FATAL {error}") from None
    print(table(result))
    if TUNE.value or not result["fits"]:
        result["variants"] = tune(config, devices, tokens)
        best = next((r for r in result["variants"] if r["fits"]), None)
        advice = f"--config.model.remat={best['remat']} --config.accumulate={best['accumulate']}" if best else None
        result["advice"] = advice
        print(f"best of what was tried: {advice}" if advice else "nothing that was tried fits: take more chips")
    if JSON.value:
        with open(JSON.value, "w") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    sys.exit(0 if result["fits"] else 1)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", "cpu")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=parse_flags)
