"""The kernels behind ``attend`` against its plain backend, on CPU: interpreted, or by the same library's CPU code."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2s_jax.ops import attend, attention_splash, choose_backend
from c2s_jax.ops.attention_cudnn import cudnn
from c2s_jax.ops.attention_mosaic import with_tokamax
from c2s_jax.parallel import activation_rules, make_mesh

T, H, K, E = 300, 4, 2, 32
LENGTHS = ((90, 1, 170, 39), (20, 140, 100, 40))  # the last is padding; examples cross borders of blocks
POSITIONS = np.stack([np.concatenate([np.arange(i) for i in n]) for n in LENGTHS]).astype(np.int32)
SEGMENTS = np.stack([np.repeat([1, 2, 3, 0], n) for n in LENGTHS]).astype(np.int32)
PLAIN = np.broadcast_to(np.arange(T, dtype=np.int32), (2, T))
EVERYTHING = dict(window=70, softcap=1.5, scale=0.3, packed=True)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of 128, so that rows of 300 (padded to 384) make three of them."""
    monkeypatch.setattr(attention_splash, "MAX_BLOCK_Q", 128)
    monkeypatch.setattr(attention_splash, "MAX_BLOCK_KV", 128)
    attention_splash._kernel.cache_clear()
    yield
    attention_splash._kernel.cache_clear()


def heads(batch: int = 2, dtype: str = "float32") -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(batch, T, n, E)), dtype) for n in (H, K, K))


def by(backend: str, *, packed: bool, **options: Any) -> Callable[..., jax.Array]:
    """``attend`` with all but q, k, v given."""
    positions, segments = (POSITIONS, SEGMENTS) if packed else (PLAIN, None)
    return lambda q, k, v: attend(q, k, v, positions=positions, segment_ids=segments, backend=backend, **options)


def value_and_gradients(f: Callable[..., jax.Array], *x: jax.Array) -> list[jax.Array]:
    """Outputs, and what q, k and v get back from one fixed cotangent."""
    cotangent = np.random.default_rng(1).normal(size=x[0].shape).astype(np.float32)

    def run(*x: jax.Array) -> list[jax.Array]:
        out, back = jax.vjp(f, *x)
        return [out, *back(cotangent.astype(out.dtype))]

    return jax.jit(run)(*x)


def distance(found: list[jax.Array], wanted: list[jax.Array]) -> float:
    """Largest deviation of a value or gradient."""
    assert all(np.abs(w).max() > 0.1 for w in wanted)
    return max(float(jnp.abs(f.astype(jnp.float32) - w).max()) for f, w in zip(found, wanted))


@pytest.mark.parametrize(
    "options",
    [
        EVERYTHING,
        EVERYTHING | dict(window=None),
        EVERYTHING | dict(softcap=None, packed=False, window=128),
        EVERYTHING | dict(softcap=None, packed=False, window=None),
    ],
    ids=["everything", "no-window", "window-alone", "causal"],
)
def test_splash_equals_plain_attention(options: dict[str, Any]) -> None:
    found = value_and_gradients(by("splash_interpret", **options), *heads())
    wanted = value_and_gradients(by("xla", **options), *heads())
    assert distance(found, wanted) < 2e-5
    if options is EVERYTHING:  # and would differ if the kernel left anything out, or were off by one
        for slip in (dict(softcap=None), dict(window=71), dict(window=69), dict(packed=False), dict(scale=0.31)):
            assert distance(found[:1], [by("xla", **EVERYTHING | slip)(*heads())]) > 0.01, slip


def test_splash_in_half_precision() -> None:
    """Off from float32 by no more than plain bfloat16 attention is, up to the rounding of ``q · scale``."""
    low = heads(dtype="bfloat16")
    exact = value_and_gradients(by("xla", **EVERYTHING), *(x.astype(jnp.float32) for x in low))
    found, plain = (value_and_gradients(by(backend, **EVERYTHING), *low) for backend in ("splash_interpret", "xla"))
    assert [x.dtype for x in found] == [jnp.bfloat16] * 4
    for f, p, e in zip(found, plain, exact):
        errors = [float(jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32) - e)))) for x in (f, p)]
        assert errors[0] < 1.5 * errors[1]
        assert errors[0] < 0.01


def test_splash_on_a_mesh() -> None:
    """Rows over four devices, heads over two; each device runs the kernel on its own."""
    x = heads(batch=8)
    positions, segments = (np.tile(a, (4, 1)) for a in (POSITIONS, SEGMENTS))
    options = dict(positions=positions, segment_ids=segments, window=70, softcap=1.5, scale=0.3)
    wanted = value_and_gradients(lambda *x: attend(*x, **options), *x)
    with jax.set_mesh(make_mesh({"fsdp": 4, "tensor": 2})), activation_rules():
        found = value_and_gradients(lambda *x: attend(*x, **options, backend="splash_interpret"), *x)
        with pytest.raises(ValueError, match='3 "batch" cannot be split over 4 devices'):
            attend(*(y[:3] for y in x), positions=positions[:3], scale=0.3, backend="splash_interpret")
    assert distance(found, wanted) < 2e-5
    assert [x.sharding.shard_shape(x.shape) for x in found] == [(2, T, n // 2, E) for n in (H, H, K, K)]


@pytest.mark.parametrize("window", [70, None])
@pytest.mark.parametrize("backend", ["xla", "splash_interpret"])
def test_rows_split_over_devices(backend: str, window: int | None) -> None:
    """Two devices share the time axis of packed rows: one has all their beginnings, one all their ends."""
    time = 256
    x = tuple(y[:, :time] for y in heads(batch=4))
    positions, segments = (np.tile(a, (2, 1))[:, :time] for a in (POSITIONS, SEGMENTS))
    options = dict(positions=positions, segment_ids=segments, window=window, softcap=1.5, scale=0.3)
    wanted = value_and_gradients(lambda *x: attend(*x, **options), *x)
    with jax.set_mesh(make_mesh({"fsdp": 2, "sequence": 2, "tensor": 2})), activation_rules():
        found = value_and_gradients(lambda *x: attend(*x, **options, backend=backend), *x)
    assert distance(found, wanted) < 2e-5
    assert [x.sharding.shard_shape(x.shape) for x in found] == [(2, time // 2, n // 2, E) for n in (H, H, K, K)]
    halves = [
        attend(*(y[:, t] for y in x), **options | dict(positions=positions[:, t], segment_ids=segments[:, t]))
        for t in (slice(128), slice(128, time))
    ]
    assert distance([jnp.concatenate(halves, axis=1)], wanted[:1]) > 0.1  # without the other's keys


def test_rows_too_short_to_split_are_whole() -> None:
    """As of prompts: a kernel that wants 128 tokens a device, and a number of tokens that devices cannot share."""
    x = heads(batch=4)
    positions, segments = (np.tile(a, (2, 1)) for a in (POSITIONS, SEGMENTS))
    options = dict(positions=positions, segment_ids=segments, window=70, softcap=1.5, scale=0.3)
    wanted = value_and_gradients(lambda *x: attend(*x, **options), *x)
    with jax.set_mesh(make_mesh({"fsdp": 2, "sequence": 2, "tensor": 2})), activation_rules():
        found = value_and_gradients(lambda *x: attend(*x, **options, backend="splash_interpret"), *x)
        with pytest.raises(ValueError, match='"cudnn" needs whole rows on each device'):
            attend(*x, **options, backend="cudnn")
    assert distance(found, wanted) < 2e-5


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_tokamax_is_given_the_right_mask(softcap: float | None, window: int | None, packed: bool) -> None:
    """By tokamax's code for CPUs, which reads the same arguments as its kernel."""
    base = pytest.importorskip("tokamax._src.ops.attention.base", reason="needs tokamax")
    options = dict(softcap=softcap, window=window, scale=0.3)
    segments = SEGMENTS if packed else None
    operation = base.DotProductAttention()
    found = value_and_gradients(lambda *x: with_tokamax(operation, *x, segment_ids=segments, **options), *heads())
    assert distance(found, value_and_gradients(by("xla", packed=packed, **options), *heads())) < 2e-5


@pytest.mark.parametrize(("window", "packed"), [(None, False), (70, False), (None, True)])
def test_cudnn_is_given_the_right_mask(window: int | None, packed: bool) -> None:
    """By the same call's code for CPUs."""
    options = dict(softcap=None, window=window, scale=0.3)
    segments = SEGMENTS if packed else None
    found = value_and_gradients(lambda *x: cudnn(*x, segment_ids=segments, implementation="xla", **options), *heads())
    assert distance(found, value_and_gradients(by("xla", packed=packed, **options), *heads())) < 2e-5


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("flash", {}, "backend 'flash' is not one of xla, splash, splash_interpret, mosaic, cudnn"),
        ("xla", dict(window=0), "a window of 0 keys"),
        ("cudnn", dict(softcap=50.0), "no soft cap"),
        ("cudnn", dict(segment_ids=SEGMENTS, window=8), "no window in packed rows"),
        ("cudnn", {}, 'computes in bfloat16 or float16, not float32; use "xla"'),
        ("mosaic", {}, 'computes in bfloat16 or float16, not float32; use "xla"'),
        ("splash", dict(positions=(PLAIN, PLAIN)), 'use backend="xla" for a cache'),
        ("mosaic", dict(positions=(PLAIN, PLAIN)), 'use backend="xla" for a cache'),
    ],
)
def test_what_a_backend_cannot_do_is_refused(backend: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attend(*heads(), backend=backend, scale=1.0, **dict(positions=PLAIN) | options)


def test_heads_too_wide_for_splash_are_refused() -> None:
    wide = jnp.zeros((1, 8, 1, 512))
    with pytest.raises(ValueError, match="head dims up to 256, not 512"):
        attend(wide, wide, wide, positions=jnp.arange(8)[None], scale=1.0, backend="splash")


def device(platform: str, kind: str, **more: Any) -> Any:
    return SimpleNamespace(platform=platform, device_kind=kind, **more)


H100 = device("gpu", "NVIDIA H100 80GB HBM3", compute_capability="9.0")
A100 = device("gpu", "NVIDIA A100-SXM4-80GB", compute_capability="8.0")
MI300 = device("gpu", "AMD Instinct MI300X", compute_capability="gfx942")
GEMMA = dict(head_dim=256, dtype="bfloat16", softcap=50.0)
PYTHIA = dict(head_dim=64, dtype="bfloat16")


@pytest.mark.parametrize(
    ("on", "tokamax", "options", "backend", "reason"),
    [
        (device("tpu", "TPU v5p"), False, GEMMA, "splash", "TPU v5p runs the splash kernel"),
        (device("tpu", "TPU v3"), False, GEMMA, "xla", "TPU v3 is older"),
        (device("tpu", "TPU v4"), False, GEMMA | dict(head_dim=512), "xla", "head_dim 512 is above"),
        (H100, True, GEMMA, "mosaic", "Hopper"),
        (H100, False, GEMMA, "xla", "no soft cap; with tokamax, mosaic would do"),
        (H100, True, GEMMA | dict(dtype="float32"), "xla", "not float32"),
        (A100, True, GEMMA, "xla", "no soft cap"),
        (A100, True, PYTHIA, "xla", "T x T bias for each packed row"),
        (A100, False, PYTHIA | dict(packed=False), "cudnn", "A100"),
        (A100, False, PYTHIA | dict(packed=False, head_dim=256), "xla", "head_dim 256"),
        (H100, False, PYTHIA | dict(packed=False, head_dim=256), "cudnn", "with tokamax, mosaic would do"),
        (MI300, True, PYTHIA, "xla", "no NVIDIA GPU"),
        (jax.devices("cpu")[0], True, GEMMA, "xla", "no kernel is written for cpu"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch, on: Any, tokamax: bool, options: dict[str, Any], backend: str, reason: str
) -> None:
    monkeypatch.setattr("c2s_jax.ops.attention_choice.find_spec", lambda name: tokamax or None)
    choice = choose_backend(on, **options)
    assert choice.backend == backend
    assert reason in choice.reason
