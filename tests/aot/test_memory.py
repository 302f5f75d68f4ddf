"""Memory of a compiled program: what is donated is there once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.aot import topology
from c2s_jax.aot.memory import compile_measured

MIB = 1 << 20
LAYERS, WIDTH, ROWS = 4, 1024, 4096


@pytest.fixture
def place() -> NamedSharding:
    pytest.importorskip("libtpu", reason='needs the TPU compiler: pip install "c2s_jax[tpu]"')
    mesh = Mesh(np.array(topology.devices("v5e:2x2")[:1]), ("one",))
    return NamedSharding(mesh, PartitionSpec())


def step(weights: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of gradient descent on a scan over layers."""

    def loss(weights: jax.Array) -> jax.Array:
        return jnp.square(jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]).sum()

    value, gradient = jax.value_and_grad(loss)(weights)
    return weights - 0.1 * gradient, value


def test_donating_does_not_take_more(place: NamedSharding) -> None:
    """Weights of 16 MiB, 16 MiB of input, and outputs of every layer twice (before and after tanh's derivative)."""
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        shapes = (LAYERS, WIDTH, WIDTH), (ROWS, WIDTH)
        abstract = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]
        compiled = partial(jax.jit, step)
        _, kept = compile_measured(compiled().lower(*abstract))
        _, donated = compile_measured(compiled(donate_argnums=0).lower(*abstract))
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    weights = 4 * LAYERS * WIDTH**2
    assert donated["aliased"] == weights
    assert kept["aliased"] == 0
    for used in (kept, donated):
        assert used["arguments"] == pytest.approx(weights + 4 * ROWS * WIDTH, rel=0.01)
        parts = used["arguments"] + used["outputs"] - used["aliased"] + used["temporaries"] + used["code"]
        assert used["total"] == parts
        assert used["temporaries"] >= 4 * ROWS * WIDTH * LAYERS  # what the backward pass reads
    assert donated["total"] <= kept["total"] + MIB
