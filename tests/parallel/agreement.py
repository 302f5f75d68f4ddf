"""Loss and gradients on a mesh against those of one device; as a program, for a number of virtual CPU devices.

    python -m tests.parallel.agreement 32 '{"gemma2": [{"fsdp": 16, "tensor": 2}]}'

prints the largest deviation for each mesh, as JSON.
"""

import json
import sys
from typing import Any

import jax
import numpy as np
from flax import nnx

from c2s_jax.models import GPTNeoXConfig, ModelConfig, make_model
from c2s_jax.parallel import InMesh, batch_sharding, make_mesh, parameter_shardings
from c2s_jax.training.step import loss_sums
from tests.toy import MODEL, N_TASKS, make_batch

NEOX = GPTNeoXConfig(
    vocab_size=64, embed_dim=16, ffw_dim=32, num_layers=2, num_heads=4, rotary_fraction=0.5, parallel_residual=True
)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile
MODELS: dict[str, ModelConfig] = {"gemma2": MODEL, "gpt_neox": NEOX}


def parameters(architecture: str) -> nnx.State:
    """The model's parameters on one device, scaled up so that everything matters."""
    params = nnx.state(make_model(MODELS[architecture], nnx.Rngs(0)), nnx.Param)
    return jax.tree.map(lambda x: 2.0 * x + 0.1 if x.ndim < 3 else 2.0 * x, params)


def loss_and_gradients(architecture: str, params: nnx.State, shape: dict[str, int], devices: int) -> dict[str, Any]:
    """Named leaves of loss sums and gradients, for 32 packed rows."""
    mesh = make_mesh(shape, jax.devices()[:devices])
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make_model(MODELS[architecture], nnx.Rngs(0))))
    shardings = parameter_shardings(params, mesh)

    def loss(params: nnx.State, batch: dict[str, jax.Array]) -> Any:
        return loss_sums(graphdef, params, batch, N_TASKS, None)

    program = InMesh(jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=(None, shardings)), mesh)
    arguments = jax.device_put(params, shardings), jax.device_put(make_batch(rows=32, time=24), batch_sharding(mesh))
    (_, sums), grads = program.lower(*arguments).compile(QUICKLY)(*arguments)
    named = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(grads)}
    return {"sums": np.asarray(sums), **named}


def deviation(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Largest difference of any leaf, relative to the leaf's largest value."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.abs(value).max() > 1e-3, name
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in wanted.items())


def deviations(architecture: str, shapes: list[dict[str, int]], devices: int) -> list[float]:
    """Of each mesh shape from one device."""
    params = parameters(architecture)
    wanted = loss_and_gradients(architecture, params, {}, 1)
    return [deviation(loss_and_gradients(architecture, params, shape, devices), wanted) for shape in shapes]


if __name__ == "__main__":
    count = int(sys.argv[1])
    jax.config.update("jax_num_cpu_devices", count)
    print(json.dumps({name: deviations(name, shapes, count) for name, shapes in json.loads(sys.argv[2]).items()}))
