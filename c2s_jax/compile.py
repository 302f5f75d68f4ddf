"""Compile a run's training step for a TPU slice that is not there: does it fit, how fast can it be, what will it cost?

    python -m c2s_jax.compile --config=configs/27b.py --topology=v5p:4x4x4 [--json=FILE] [--tokens=1e11] [--tune]

    --topology   v4, v5e, v5p or v6e, by shape ("v5p:4x4x4"), by name ("v5p-128") or several slices ("2*v5e-256")
    --rows       rows of config.data.seq_len tokens a chip; without it config.batch_size is kept
    --tokens     tokens to train on, for days and chip-hours
    --tune       also find the fastest rematerialisation policy that fits
    --xla_flags  file of compiler flags by chip; "none" for the compiler's defaults. By default those of the launchers

With ``objective = "grpo"`` the three programs of a phase are compiled, and their memory is told.

Needs the compiler (``pip install "c2s_jax[tpu]"``), no TPU, and a few minutes. Status 0: the step fits. Status 1: it
does not, and the report names the first change of settings that makes it fit. docs/training.md tells how to read it.
"""

import copy
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from c2s_jax import workdirs
from c2s_jax.aot import search, topology, xla_flags
from c2s_jax.aot.account import account
from c2s_jax.aot.chips import GIB, chip
from c2s_jax.aot.phases import account_phases
from c2s_jax.aot.step import compile_step
from c2s_jax.checks import check
from c2s_jax.config import model_config, parse_flags
from c2s_jax.parallel import batch_parts

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
TOPOLOGY: Any = flags.DEFINE_string("topology", None, f"Slice to compile for: {topology.HELP}.")
ROWS = flags.DEFINE_integer("rows", None, "Rows a chip; sets config.batch_size.", lower_bound=1)
TOKENS = flags.DEFINE_float("tokens", None, "Tokens of the corpus, for days; by default steps × batch_size × seq_len.")
TUNE = flags.DEFINE_bool("tune", False, "Also find the fastest remat policy that fits.")
XLA_FLAGS = flags.DEFINE_string("xla_flags", None, 'Compiler flags\' file, or "none"; by default launch/xla_flags.txt.')
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
        "products": config.products,
        "remat": config.model.remat,
        "remat_scope": config.model.remat_scope,
        "mlp_chunks": config.model.get("mlp_chunks", 1),
    }


def advise(config: ConfigDict, devices: list[jax.Device], tokens: float, first: dict[str, Any]) -> dict[str, Any]:
    """What to change after report ``first``, and what was tried: a step that fits may keep more, another must less."""

    def attempt(variant: ConfigDict) -> dict[str, Any]:
        model, mesh = variant.model, variant.mesh
        workdirs.say(
            f"Trying remat={model.remat} ({model.remat_scope}), mlp_chunks={model.get('mlp_chunks', 1)}, "
            f"accumulate={variant.accumulate}, tensor={mesh.tensor}"
        )
        result = report(variant, devices, tokens)
        workdirs.say(line(result))
        return result

    changes: search.Changes | None
    if first["fits"]:
        changes, variants = search.fastest_that_fits(config, len(devices), first, attempt)
    else:
        changes, variants = search.first_that_fits(config, len(devices), attempt)
    return {"advice": search.as_flags(changes) if changes else None, "variants": variants}


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
    int8 = f" ({r['int8_flops'] / r['matmul_flops']:.0%} of them int8)" if r["int8_flops"] else ""
    kinds = ", ".join(f"{kind} {used[kind] / GIB:.2f}" for kind in ("arguments", "temporaries", "code"))
    moved = ", ".join(f"{kind} {n / 1e9:.2f}" for kind, n in sorted(r["collective_bytes"].items())) or "none"
    limits = ", ".join(f"{kind} {seconds:.3f}" for kind, seconds in bounds.items())
    rows = {
        "step": f"{r['name']}, {'LoRA' if r['adapter'] else 'all parameters'}, {r['rows_per_chip']:g} rows of "
        f"{r['seq_len']} tokens a chip, remat={r['remat']} ({r['remat_scope']}), mlp_chunks={r['mlp_chunks']}",
        "chips": f"{r['chips']} × {r['chip']}, mesh {r['mesh']}",
        "memory": line(r).strip().split(";")[0],
        "  GiB": f"{kinds} (aliased {used['aliased'] / GIB:.2f}, peak {used['peak'] / GIB:.2f}); "
        f"on the host {used['host'] / GIB:.2f}",
        "FLOPs": f"{r['flops_per_token'] / 1e9:.1f} G a token; executed a chip and step: products "
        f"{r['matmul_flops'] / 1e12:.1f} T{int8}, attention {r['attention_flops'] / 1e12:.1f} T",
        "traffic": f"HBM {r['memory_bytes'] / 1e9:.1f} GB; between chips, GB: {moved}",
        "bounds": f"seconds a step: {limits}",
        "estimate": f"{r['step_seconds_estimate']:.3f} s a step, all else hidden; MFU at most {r['mfu_bound']:.1%} "
        f"(products and attention alone {r['mfu_bound_flops_only']:.1%})",
        "corpus": f"{r['tokens']:.3g} tokens: {r['days']:.2f} days, {r['chip_hours']:,.0f} chip-hours at that speed",
        "compiled": f"in {r['compile_seconds']:.0f} s",
    }
    return "\n".join(f"{name:>9}  {text}" for name, text in rows.items())


def phase_table(r: dict[str, Any]) -> str:
    """The report of a GRPO phase to read."""
    lines = [f"{r['chips']} × {r['chip']}, mesh {r['mesh']}, {r['completions']} completions a phase"]
    for name, one in r["phases"].items():
        used = one["hbm_bytes"]
        kinds = ", ".join(f"{kind} {used[kind] / GIB:.2f}" for kind in ("arguments", "temporaries", "code", "resident"))
        lines.append(f"{name:>17} {line(r | one).strip()} ({kinds} GiB), compiled in {one['compile_seconds']:.0f} s")
    return "\n".join(lines)


def use_flags() -> list[str]:
    """Set the compiler up as the launchers do; the flags."""
    slices, generation, _ = topology.parse(TOPOLOGY.value)
    if XLA_FLAGS.value == "none" or (XLA_FLAGS.value is None and not xla_flags.FILE.exists()):
        return []
    file = Path(XLA_FLAGS.value or xla_flags.FILE)
    if not file.exists():
        raise ValueError(f"--xla_flags={file}: there is no such file")
    found = xla_flags.bundle(file, generation, slices)
    xla_flags.use(found)
    return found


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    config = copy.deepcopy(CONFIG.value)
    try:
        compiler_flags = use_flags()
        shards = batch_parts(config.mesh, topology.n_chips(TOPOLOGY.value))
        if ROWS.value:
            config.batch_size = ROWS.value * shards
        check(config, devices=shards)
        model_config(config)  # refuses what is no model, before a compiler has to be there
        devices = topology.devices(TOPOLOGY.value)
        tokens = TOKENS.value or float(config.steps) * config.batch_size * config.data.seq_len
        grpo = config.objective == "grpo"
        result = account_phases(config, devices) if grpo else report(config, devices, tokens)
    except ValueError as error:
        raise SystemExit(f"FATAL {error}") from None
    result["compiler_flags"] = compiler_flags
    print(phase_table(result) if grpo else table(result))
    if not grpo and (TUNE.value or not result["fits"]):
        result |= advise(config, devices, tokens, result)
        what = "fastest that fits" if result["fits"] else "fits with"
        print(f"{what}: {result['advice']}" if result["advice"] else "nothing that was tried fits: take more chips")
    if JSON.value:
        with open(JSON.value, "w") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    sys.exit(0 if result["fits"] else 1)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs for absent devices cannot be read back
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=parse_flags)
