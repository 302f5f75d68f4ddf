"""The kernels behind ``attend`` on the accelerator that they are written for.

Skipped on CPU, where JAX is kept by default: ``JAX_PLATFORMS=cuda pytest -n 0 tests/ops/test_backends_device.py``.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2s_jax.ops import attend

T = 1024
LENGTHS = (300, 1, 500, 223)
POSITIONS = jnp.asarray(np.concatenate([np.arange(n) for n in LENGTHS])[None], jnp.int32)
SEGMENTS = jnp.asarray(np.repeat([1, 2, 3, 0], LENGTHS)[None], jnp.int32)
GEMMA = dict(window=20, softcap=5.0)
GLOBAL = GEMMA | dict(window=None)
PYTHIA = dict(window=None, softcap=None)


def here() -> list[str]:
    """Kernels that this machine can run."""
    platform = jax.devices()[0].platform
    if platform == "gpu":
        return ["cudnn", "mosaic"] if find_spec("tokamax") else ["cudnn"]
    return ["splash"] if platform == "tpu" else []


def results(x: tuple[jax.Array, ...], backend: str, options: dict[str, Any]) -> list[jax.Array]:
    """Output and gradients, in float32."""

    def run(cotangent: jax.Array, *x: jax.Array) -> list[jax.Array]:
        out, back = jax.vjp(partial(attend, positions=POSITIONS, scale=0.4, backend=backend, **options), *x)
        return [r.astype(jnp.float32) for r in (out, *back(cotangent.astype(out.dtype)))]

    return jax.jit(run)(jax.random.normal(jax.random.key(1), x[0].shape), *x)


def errors(found: list[jax.Array], wanted: list[jax.Array]) -> np.ndarray:
    """Root mean square deviation of the output and of each gradient."""
    return np.array([float(jnp.sqrt(jnp.mean(jnp.square(f - w)))) for f, w in zip(found, wanted)])


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("splash", GEMMA),
        ("splash", GLOBAL),
        ("mosaic", GEMMA),
        ("mosaic", GLOBAL),
        ("mosaic", PYTHIA),
        ("cudnn", PYTHIA),
    ],
)
def test_kernel_is_as_exact_as_plain_attention(backend: str, options: dict[str, Any], head_dim: int) -> None:
    """Against float32: off by little more than plain attention in the same dtype, and by far less than a slip."""
    if backend not in here():
        pytest.skip(f"no {backend} on {jax.devices()[0].device_kind}, or tokamax is not installed")
    keys = jax.random.split(jax.random.key(0), 3)
    low = tuple(jax.random.normal(k, (1, T, n, head_dim), jnp.bfloat16) for k, n in zip(keys, (8, 4, 4)))
    high = tuple(x.astype(jnp.float32) for x in low)
    options = options | dict(segment_ids=SEGMENTS)
    with jax.default_matmul_precision("highest"):
        exact = results(high, "xla", options)
        slips = [options | dict(segment_ids=None)]
        slips += [options | dict(softcap=None)] if options["softcap"] else []
        slips += [options | dict(window=options["window"] + 1)] if options["window"] else []
        off = [errors(results(high, "xla", slip), exact) for slip in slips]
    kernel, plain = (errors(results(low, b, options), exact) for b in (backend, "xla"))
    assert (kernel < 3 * plain).all(), (kernel, plain)
    assert all(kernel[0] < 0.5 * o[0] for o in off), (kernel, off)
