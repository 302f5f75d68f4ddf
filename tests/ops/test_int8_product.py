"""Products in 8-bit integers: what they round, what they keep, and that training by them goes where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from c2s_jax.aot.hlo import Program, dims
from c2s_jax.ops import int8_product
from c2s_jax.ops.int8_product import TERMS
from c2s_jax.parallel import make_mesh
from c2s_jax.training import StatePlan, create_state, make_train_step
from tests.toy import MODEL, N_TASKS, make_batch, named, run_config


def draw(*shape: int, seed: int = 0) -> jax.Array:
    """Values with a scale of their own in each row and column."""
    rng = np.random.default_rng(seed)
    scales = [np.exp(rng.normal(size=(n, *(1,) * (len(shape) - i - 1)))) for i, n in enumerate(shape)]
    return jnp.asarray(rng.normal(size=shape) * np.prod(np.broadcast_arrays(*scales), axis=0), jnp.float32)


def rounded(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """By qwix, with a scale for all values along ``axes``."""
    qwix = pytest.importorskip("qwix", reason='needs qwix: pip install "c2s_jax[qlora]"')
    kept = [a for a in range(x.ndim) if a not in axes]
    return qwix.dequantize(qwix.quantize(x, "int8", channelwise_axes=kept))


@pytest.mark.parametrize(("x_shape", "kernel_shape", "n"), [((3, 5, 16), (16, 4, 6), 1), ((3, 5, 4, 6), (4, 6, 16), 2)])
def test_it_multiplies_what_qwix_rounds(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], n: int) -> None:
    """Forward, the gradient of x and that of the kernel, against float32 products of rounded operands."""
    x, kernel = draw(*x_shape), draw(*kernel_shape, seed=1)
    y, vjp = jax.vjp(lambda x, k: int8_product(x, k, n), x, kernel)
    w = rounded(kernel, tuple(range(n)))
    np.testing.assert_allclose(
        y, jnp.tensordot(rounded(x, tuple(range(x.ndim - n, x.ndim))), w, n), rtol=1e-4, atol=1e-3
    )
    dy = draw(*y.shape, seed=2)
    dx, dkernel = vjp(dy)
    outer = tuple(range(n, kernel.ndim))
    last = tuple(range(2, y.ndim))
    columns = jnp.max(jnp.abs(kernel), axis=tuple(range(n)))
    exact = jnp.tensordot(rounded(dy * columns, last), w / columns, (last, outer))
    assert np.isclose(dx, exact, rtol=1e-4, atol=1e-4).mean() > 0.7  # the rest: halves, rounded to the other side
    np.testing.assert_allclose(dx, exact, rtol=0.02, atol=0.01 * float(jnp.abs(exact).max()))
    np.testing.assert_allclose(dkernel, jnp.tensordot(x, dy, ((0, 1), (0, 1))), rtol=1e-4, atol=1e-3)


def test_rounding_costs_little_and_something() -> None:
    x, kernel = draw(64, 256), draw(256, 128, seed=1)
    y, exact = int8_product(x, kernel, 1), x @ kernel
    error = float(jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact))
    assert 1e-3 < error < 3e-2


def test_rows_of_zeros() -> None:
    y, vjp = jax.vjp(lambda x: int8_product(x, jnp.ones((8, 4)), 1), jnp.zeros((2, 8)))
    assert not y.any()
    assert not jnp.isnan(vjp(jnp.zeros((2, 4)))[0]).any()


def test_sums_that_could_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {TERMS:,} terms"):
        jax.eval_shape(lambda x, k: int8_product(x, k, 1), jnp.zeros((1, TERMS + 1)), jnp.zeros((TERMS + 1, 1)))


def losses(products: str, shape: dict[str, int], steps: int = 20) -> tuple[list[float], dict]:
    """Of training on one batch again and again."""
    devices = jax.devices()[: int(np.prod(list(shape.values())))]
    mesh, optimizer = make_mesh(shape, devices), optax.adam(3e-3)
    graphdef, state, shardings = create_state(MODEL, optimizer, mesh, 0, products=products)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS)
    found = []
    for _ in range(steps):
        state, metrics = step(state, make_batch())
        found.append(float(metrics["loss"]))
    return found, named(state.params)


def test_training_learns_as_in_float() -> None:
    float_losses, int8_losses = (losses(products, {"fsdp": 1})[0] for products in ("float", "int8"))
    assert int8_losses[0] != float_losses[0]
    np.testing.assert_allclose(int8_losses[0], float_losses[0], rtol=0.01)
    fall = float_losses[0] - float_losses[-1]
    assert fall > 0.5
    assert float_losses[0] - (int8_losses[-1]) > 0.9 * fall


def test_meshes_agree() -> None:
    one, _ = losses("int8", {"fsdp": 1}, steps=3)
    many, _ = losses("int8", {"fsdp": 4, "tensor": 2}, steps=3)
    np.testing.assert_allclose(many, one, rtol=2e-3)


def test_kernels_travel_as_codes() -> None:
    """Under fsdp, what is gathered of a kernel is int8; its products are of integers."""
    mesh, optimizer = make_mesh({"fsdp": 8}, jax.devices()[:8]), optax.sgd(0.1)
    plan = StatePlan(MODEL, optimizer, mesh, products="int8")
    step = make_train_step(plan.graphdef, optimizer, mesh, plan.shardings, n_tasks=N_TASKS)
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    batch = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=rows) for k, v in make_batch().items()}
    program = Program(step.lower(plan.abstract, batch).compile().as_text())
    gathered = [i.shape for _, _, i, _ in program.walk() if i.operation.removesuffix("-start") == "all-gather"]
    kernels = [s for s in gathered if sorted(dims(s))[-2:] in ([16, 32], [8, 16])]
    assert any(s.startswith("s8") for s in gathered)
    assert not [s for s in kernels if s.startswith("f32[16,32]")], kernels


def test_what_is_not_there_is_refused() -> None:
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    with pytest.raises(ValueError, match="products='fp4' is not one of float, int8"):
        StatePlan(MODEL, optax.sgd(0.1), mesh, products="fp4")
    assert run_config().products == "float"
    plan = StatePlan(MODEL, optax.sgd(0.1), mesh, products="int8")
    assert nnx.merge(plan.graphdef, plan.create(0).params).blocks.local_layer.attention.q.products == "int8"
