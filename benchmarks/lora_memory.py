"""Bytes to fine-tune Gemma-2 on one 80 GB accelerator: all of it, or an adapter over a bfloat16, int8 or nf4 base.

    JAX_PLATFORMS=cpu python benchmarks/lora_memory.py [--sizes 9b 27b] [--kinds full lora int8 nf4] [--json FILE]

Prints JSON. Nothing is allocated: parameters, gradients and optimizer state are those of the run's plan
(``jax.eval_shape``), and ``temporaries`` are what the compiler reserves for the real training step of one packed row,
gradients and the activations of rematerialised blocks among them. ``total`` is state, temporaries and code.

The step is compiled ahead of time for one TPU v5p, which needs the package libtpu and no TPU. It stands for a GPU of
80 GB: XLA assigns buffers in the same way, and what a GPU adds (CUDA's context, workspaces of kernels, fragmentation)
is not counted. XLA for the CPU (``--target cpu``) computes bfloat16 in float32 and so overstates by up to two.
"""

import argparse
import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies

from c2s_jax.aot.memory import compile_measured
from c2s_jax.models import Gemma2Config, lora, num_parameters
from c2s_jax.models.gemma2 import RELEASED
from c2s_jax.parallel import batch_sharding, make_mesh
from c2s_jax.training import StatePlan, make_train_step

CAPACITY = 80 * 10**9
KINDS = {
    "full": "all parameters; float32 parameters and moments, bfloat16 activations",
    "lora": "adapter over a bfloat16 base",
    "int8": "adapter over an int8 base",
    "nf4": "adapter over an nf4 base (QLoRA)",
}


def measure(size: str, kind: str, device: jax.Device, options: argparse.Namespace) -> dict[str, Any]:
    """Bytes of one way to train one size."""
    config = Gemma2Config(
        **RELEASED[size],
        dtype="bfloat16",
        param_dtype="float32" if kind == "full" else "bfloat16",
        remat=options.remat,
        attention=options.attention,
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))
    mesh = make_mesh({"fsdp": 1}, [device])
    adapter = None if kind == "full" else lora.LoRAConfig(rank=options.rank)
    plan = StatePlan(config, optimizer, mesh, adapter=adapter, quantized=kind if kind in ("int8", "nf4") else None)
    state = plan.abstract
    out: dict[str, Any] = {
        "trained_parameters": num_parameters(state.params),
        "parameters": nbytes(state.params) + nbytes(state.frozen),
        "gradients": nbytes(state.params),
        "optimizer": nbytes(state.opt_state),
    }
    held = out["parameters"] + out["optimizer"]
    step = make_train_step(plan.graphdef, optimizer, mesh, plan.shardings, n_tasks=8)
    lowered = step.lower(state, abstract_batch(options.time, batch_sharding(mesh)))
    try:
        _, memory = compile_measured(lowered)
        out["temporaries"], out["total"] = memory["temporaries"], memory["total"]
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        out["total"] = max(used(str(error)), held + out["gradients"])
        out["temporaries"] = out["total"] - held
        out["note"] = f"does not fit the {device.device_kind}, either; total as its compiler tells, or the state alone"
    out["fits"] = out["total"] <= CAPACITY
    return out


def used(message: str) -> int:
    """Bytes that a compilation which failed for want of memory says it needs; 0 if it does not say."""
    match = re.search(r"Used ([\d.]+)([KMGT])", message)
    return int(float(match[1]) * 1024 ** ("KMGT".index(match[2]) + 1)) if match else 0


def abstract_batch(time: int, sharding: jax.sharding.Sharding) -> dict[str, jax.ShapeDtypeStruct]:
    """One packed row."""
    dtypes = dict.fromkeys(("tokens", "targets", "positions", "segment_ids", "task_ids"), jnp.int32)
    dtypes["loss_weights"] = jnp.float32
    return {name: jax.ShapeDtypeStruct((1, time), dtype, sharding=sharding) for name, dtype in dtypes.items()}


def nbytes(tree: Any) -> int:
    """Of all leaves."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def target(name: str) -> jax.Device:
    """One device to compile for."""
    if name == "cpu":
        return jax.devices("cpu")[0]
    return topologies.get_topology_desc(name, platform="tpu").devices[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["9b", "27b"], choices=list(RELEASED))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--time", type=int, default=8192, help="tokens of the row")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter, on every linear map")
    parser.add_argument("--remat", default="full")
    parser.add_argument("--attention", default="splash")
    parser.add_argument("--target", default="v5p:2x2x1", help='a TPU topology, or "cpu"')
    parser.add_argument("--json", default="", help="also write here")
    options = parser.parse_args()
    device = target(options.target)
    report: dict[str, Any] = {
        "capacity": CAPACITY,
        "compiled_for": device.device_kind,
        "jax": jax.__version__,
        **{key: getattr(options, key) for key in ("time", "rank", "remat", "attention")},
        "kinds": {kind: KINDS[kind] for kind in options.kinds},
        "bytes": {},
    }
    for size in options.sizes:
        for kind in options.kinds:
            print(f"{size} {kind}", file=sys.stderr)
            report["bytes"].setdefault(size, {})[kind] = measure(size, kind, device, options)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        with open(options.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
