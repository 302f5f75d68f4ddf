"""Which change of a run's settings makes its step fit, and which fitting one is fastest."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from c2s_jax.checks import check
from c2s_jax.config import model_config
from c2s_jax.models import remat
from c2s_jax.parallel import batch_parts

Changes = dict[str, Any]
Report = dict[str, Any]
Try = Callable[[ConfigDict], Report]


def changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    """A copy with other values, by dotted key."""
    out = copy.deepcopy(config)
    out.update_from_flattened_dict(changes)
    return out


def as_flags(changes: Changes) -> str:
    """What to add to a command line."""
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def smaller(config: ConfigDict, chips: int) -> Iterator[Changes]:
    """Changes that save memory, those that cost least time first; the batch stays what it is."""
    least: Changes = {"model.remat": "full"}
    yield dict(least)
    if config.model.get("mlp_chunks") == 1 and not config.lora.quantize and config.model.ffw_dim % 4 == 0:
        least["model.mlp_chunks"] = 4
        yield dict(least)
    shards = batch_parts(config.mesh, chips)
    n = 2 * config.accumulate
    while config.batch_size % (n * shards) == 0 and n <= 16:
        yield least | {"accumulate": n}
        n *= 2
    if config.model.remat_scope != "both":
        least["model.remat_scope"] = "both"
        yield dict(least)
    if config.mesh.tensor == 1:
        yield least | {"mesh.tensor": 2}


def first_that_fits(config: ConfigDict, chips: int, attempt: Try) -> tuple[Changes | None, list[Report]]:
    """The cheapest change of ``smaller`` that fits, or None, and reports of all that were tried."""
    reports = []
    for changes in smaller(config, chips):
        variant = changed(config, changes)
        try:
            check(variant, devices=batch_parts(variant.mesh, chips))
        except ValueError:
            continue
        reports.append(attempt(variant) | {"changes": as_flags(changes)})
        if reports[-1]["fits"]:
            return changes, reports
    return None, reports


def fastest_that_fits(config: ConfigDict, chips: int, report: Report, attempt: Try) -> tuple[Changes, list[Report]]:
    """The policy of ``remat.POLICIES`` with the shortest step that fits, and reports of what was compiled to know it.

    ``report`` is that of ``config`` itself, which fits. What a policy adds follows from shapes, so that the search
    begins at the one that keeps most and should fit, and goes down. It ends at one whose arithmetic takes all its time:
    those that keep less compute more. It goes on below one that HBM or the interconnect slow down, and below one near a
    chip's capacity with which the compiler makes values again by itself, and not the cheapest.
    """
    rows = config.batch_size / config.accumulate / chips
    before = kept_bytes(config, config.model.remat, rows)
    best, changes = report, {"model.remat": config.model.remat}
    reports: list[Report] = []
    for policy in reversed(remat.POLICIES):
        if policy == config.model.remat:
            break
        expected = report["hbm_bytes_per_chip"] + kept_bytes(config, policy, rows) - before
        if expected > report["hbm_capacity_bytes"]:
            continue
        tried = {"model.remat": policy, "model.remat_scope": "layer"}
        found = attempt(changed(config, tried)) | {"changes": as_flags(tried)}
        reports.append(found)
        if found["fits"] and found["step_seconds_estimate"] < best["step_seconds_estimate"]:
            best, changes = found, tried
            if found["step_seconds_estimate"] == found["bounds_seconds"]["compute"]:
                break
    return changes, reports


def kept_bytes(config: ConfigDict, policy: str, rows: float) -> float:
    """Bytes of named values that a device holds for the backward pass of ``rows`` rows under a policy."""
    model = model_config(config)
    heads = model.num_heads * model.head_dim
    kv_heads = getattr(model, "num_kv_heads", model.num_heads) * model.head_dim
    widths = {"q": heads, "k": kv_heads, "v": kv_heads, "context": heads, "attention": model.embed_dim}
    widths |= dict.fromkeys(("gate", "up", "product"), model.ffw_dim) | {"mlp": model.embed_dim}
    layers = (0, 1) if hasattr(model, "sliding_window") else (0,)
    places = [remat.parse(policy, layer) for layer in layers]
    width = sum(widths.get(name, 0) for kept in places for name, place in kept.items() if place == "device")
    itemsize = jnp.dtype(model.dtype).itemsize
    return rows * config.data.seq_len * itemsize * width * model.num_layers / len(layers)
