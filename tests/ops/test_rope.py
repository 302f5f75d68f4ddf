"""Rotary positions against multiplication of complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from c2s_jax.ops import rotate, rotation

B, T, N, E = 2, 9, 3, 8


def turned(x: NDArray, positions: NDArray, theta: float) -> NDArray:
    """Pair (i, i + E/2) is a complex number that turns by position · theta^(-2i/E)."""
    half = x.shape[-1] // 2
    z = x[..., :half].astype(np.float64) + 1j * x[..., half:]
    z *= np.exp(1j * positions[..., None] * theta ** (-np.arange(half) / half))[:, :, None]
    return np.concatenate([z.real, z.imag], axis=-1)


@pytest.fixture
def inputs() -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, N, E)).astype(np.float32), rng.integers(0, 500, (B, T), np.int32)


def test_equals_complex_multiplication(inputs: tuple[NDArray, NDArray]) -> None:
    found = jax.jit(lambda x, p: rotate(x, rotation(p, E, theta=100.0)))(*inputs)
    np.testing.assert_allclose(found, turned(*inputs, theta=100.0), rtol=0, atol=2e-4)


@pytest.mark.parametrize("dims", [2, 4, 6, 8])
def test_leading_dimensions_alone(inputs: tuple[NDArray, NDArray], dims: int) -> None:
    """They turn as a head of that size would; the others stay, to the bit."""
    x, positions = inputs
    found = np.asarray(rotate(jnp.asarray(x), rotation(jnp.asarray(positions), dims, theta=100.0)))
    np.testing.assert_allclose(found[..., :dims], turned(x[..., :dims], positions, 100.0), rtol=0, atol=2e-4)
    np.testing.assert_array_equal(found[..., dims:], x[..., dims:])


def test_scaled_positions_lie_between_whole_ones(inputs: tuple[NDArray, NDArray]) -> None:
    x, positions = inputs
    found = rotate(jnp.asarray(x), rotation(jnp.asarray(positions), 6, theta=100.0, position_scale=4.0))
    wanted = turned(x[..., :6], positions / 4.0, 100.0)
    np.testing.assert_allclose(found[..., :6], wanted, rtol=0, atol=2e-4)
    assert np.abs(turned(x[..., :6], positions // 4, 100.0) - wanted).max() > 0.1


def test_products_depend_on_distance_alone() -> None:
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 1, E)).astype(np.float32)

    def product(a: int, b: int) -> float:
        at = (rotate(jnp.asarray(x), rotation(jnp.full((1, 1), p), E, theta=1e4)) for x, p in ((q, a), (k, b)))
        return float(jnp.vdot(*at))

    assert abs(product(7, 3) - product(104, 100)) < 1e-4
    assert abs(product(7, 3) - product(7, 4)) > 1e-2


def test_half_precision_keeps_its_dtype_and_far_positions() -> None:
    """Angles are float32 whatever the dtype: position 8191 would not exist in bfloat16."""
    x = jnp.ones((1, 2, 1, E), jnp.bfloat16)
    positions = jnp.array([[8190, 8191]])
    turn = rotation(positions, E, theta=1e4)
    found = rotate(x, turn)
    assert found.dtype == jnp.bfloat16
    wanted = rotate(x.astype(jnp.float32), turn)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=0, atol=0.02)
    assert np.abs(wanted[0, 0] - wanted[0, 1]).max() > 0.1


def test_constrain_outside_of_rules_is_the_identity() -> None:
    from c2s_jax.ops import constrain

    x = jnp.ones((2, 3))
    assert constrain(x, "batch", None) is x
