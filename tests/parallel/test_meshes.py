"""One step on eight virtual devices, however they are laid out, is the step of one device."""

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import Gemma2
from c2s_jax.ops import constrain
from c2s_jax.parallel import (
    ACTIVATION_RULES,
    PARAMETER_RULES,
    activation_rules,
    batch_sharding,
    describe,
    describe_state,
    make_mesh,
    micro_batches,
    parameter_shardings,
    share_of_rows,
)
from c2s_jax.parallel.mesh import AXES
from c2s_jax.training import StatePlan, create_state, make_eval_step, make_optimizer, make_train_step
from tests.toy import MODEL, N_TASKS, make_batch, named, run_config

MESHES = [  # more of them, without an optimizer, in test_every_mesh
    {"fsdp": 8},
    {"replica": 4, "tensor": 2},
    {"fsdp": 2, "sequence": 2, "tensor": 2},
]


@pytest.mark.parametrize(
    ("shape", "accumulate", "devices", "parts"),
    [
        ((16, 256), 1, 1, 4),  # 1,024 tokens
        ((16, 256), 2, 1, 4),
        ((16, 256), 8, 1, 8),  # never fewer than asked for
        ((12, 300), 2, 1, 4),  # divides the rows and is a multiple of what is asked for
        ((16, 256), 1, 4, 1),
        ((8, 4096), 1, 2, 4),  # a row of every device
    ],
)
def test_processors_take_a_batch_in_parts(shape, accumulate, devices, parts) -> None:
    assert micro_batches(make_mesh({"fsdp": devices}, jax.devices()[:devices]), shape, accumulate) == parts


def test_accelerators_take_a_batch_as_it_is() -> None:
    mesh: Any = SimpleNamespace(devices=np.array([SimpleNamespace(platform="tpu")]), shape={"replica": 1, "fsdp": 1})
    assert micro_batches(mesh, (64, 8192), 2) == 2


@dataclasses.dataclass
class Result:
    """What two steps on a mesh gave: parameters before and after each, metrics, evaluation sums."""

    params: list[dict[str, NDArray]]
    metrics: list[dict[str, NDArray]]
    sums: NDArray


def two_steps(
    shape: dict[str, int], optimizer: optax.GradientTransformation, *, devices: int = 8, accumulate: int = 1
) -> Result:
    mesh = make_mesh(shape, jax.devices()[:devices])
    graphdef, state, shardings = create_state(MODEL, optimizer, mesh, 0)
    step = make_train_step(graphdef, optimizer, mesh, shardings, n_tasks=N_TASKS, accumulate=accumulate)
    params, metrics = [dict(named(state.params))], []
    for seed in range(2):
        batch = jax.device_put(make_batch(rows=16, seed=seed), batch_sharding(mesh))
        state, m = step(state, batch)
        params.append(dict(named(state.params)))
        metrics.append({k: np.asarray(v) for k, v in m.items()})
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings)):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    sums = make_eval_step(graphdef, mesh, n_tasks=N_TASKS)(state.params, batch)
    return Result(params, metrics, np.asarray(sums))


@pytest.fixture(scope="module")
def alone() -> Result:
    return two_steps({"fsdp": 1}, optax.sgd(0.5), devices=1)


def assert_same(found: Result, wanted: Result) -> None:
    for name, value in wanted.params[0].items():
        np.testing.assert_array_equal(found.params[0][name], value, err_msg=name)  # born equal, to the bit
    for a, b in zip(found.metrics, wanted.metrics):
        for name, value in b.items():
            np.testing.assert_allclose(a[name], value, rtol=2e-5, err_msg=name)
    for i in (0, 1):  # plain gradient descent: a change of the parameters is a gradient
        for name in wanted.params[0]:
            change = wanted.params[i + 1][name] - wanted.params[i][name]
            assert np.abs(change).max() > 1e-4, name
            np.testing.assert_allclose(
                found.params[i + 1][name] - found.params[i][name],
                change,
                rtol=0,
                atol=1e-4 * np.abs(change).max() + 2e-7,
                err_msg=name,
            )
    np.testing.assert_allclose(found.sums, wanted.sums, rtol=2e-5)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_same_loss_and_gradients_on_any_mesh(shape: dict[str, int], alone: Result) -> None:
    assert_same(two_steps(shape, optax.sgd(0.5)), alone)


def test_same_with_accumulation_on_a_mesh(alone: Result) -> None:
    assert_same(two_steps({"fsdp": 4, "tensor": 2}, optax.sgd(0.5), accumulate=2), alone)


def test_same_with_the_real_optimizer() -> None:
    """Clipping and decay too; Adam's division by small moments allows only a wider tolerance."""
    optimizer = make_optimizer(run_config(warmup_steps=1, clip_norm=0.1))
    alone = two_steps({"fsdp": 1}, optimizer, devices=1)
    found = two_steps({"replica": 2, "fsdp": 2, "tensor": 2}, optimizer)
    for a, b in zip(found.metrics, alone.metrics):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-5)
        np.testing.assert_allclose(a["gradient_norm"], b["gradient_norm"], rtol=2e-4)
    for name, value in alone.params[2].items():
        change = value - alone.params[0][name]
        difference = np.abs(found.params[2][name] - value)
        assert difference.mean() < 1e-3 * np.abs(change).mean(), name


def abstract_params(**changes: Any) -> nnx.State:
    config = dataclasses.replace(MODEL, **changes)
    return nnx.state(nnx.eval_shape(lambda: Gemma2(config, rngs=nnx.Rngs(0))), nnx.Param)


def test_parameters_lie_where_the_rules_say() -> None:
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    _, state, _ = create_state(MODEL, optax.adam(1e-3), mesh, 0)
    shards = {
        name: leaf.sharding.shard_shape(leaf.shape)
        for name, leaf in ((".".join(map(str, path)), v.get_value()) for path, v in nnx.to_flat_state(state.params))
    }
    # [vocab / tensor, embed / fsdp], [pairs, embed / fsdp, heads / tensor, head_dim], and so on.
    assert shards["embedding"] == (32, 4)
    assert shards["blocks.local_layer.attention.q.kernel"] == (2, 4, 2, 8)
    assert shards["blocks.global_layer.attention.k.kernel"] == (2, 4, 1, 8)
    assert shards["blocks.local_layer.attention.o.kernel"] == (2, 2, 8, 4)
    assert shards["blocks.local_layer.ffw.gate.kernel"] == (2, 4, 16)
    assert shards["blocks.local_layer.ffw.down.kernel"] == (2, 16, 4)
    assert shards["final_norm.scale"] == (16,)
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    for p, m in zip(jax.tree.leaves(state.params), jax.tree.leaves(moments)):
        assert p.sharding == m.sharding


def test_describe_names_every_parameter() -> None:
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    params = abstract_params()
    lines = describe(params, parameter_shardings(params, mesh)).splitlines()
    assert len(lines) == len(jax.tree.leaves(params))
    (line,) = (x for x in lines if x.startswith("embedding "))
    assert "(64, 16) float32" in line
    assert "tensor" in line
    assert re.split(" {2,}", line)[-1] == "512 B/device"  # 32 × 4 float32


def test_table_of_a_state_adds_up() -> None:
    """Parameters and moments over fsdp and sequence alike; what each part takes is what XLA gives its arrays."""
    mesh = make_mesh({"fsdp": 2, "sequence": 2, "tensor": 2})
    plan = StatePlan(MODEL, optax.adam(1e-3), mesh, ema=True)
    text = describe_state(plan.abstract, mesh)
    assert "over 8 devices (replica 1, fsdp 2, sequence 2, tensor 2)" in text
    (line,) = (x for x in text.splitlines() if x.startswith("blocks.local_layer.ffw.up.kernel "))
    assert re.split(" {2,}", line)[-3:] == ["(-, fsdp·sequence, tensor)", "(2, 4, 16)", "512 B/device"]
    state = plan.create(0)
    real = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state._replace(step=None)))
    assert text.endswith(f"together {real / 2**30:.3f}")
    assert describe_state(state, mesh) == text


def test_dimension_that_the_mesh_does_not_divide() -> None:
    params = abstract_params(num_kv_heads=1)
    with pytest.raises(
        ValueError,
        match=r"blocks\..*\.k\.kernel .*dimension 1 \('kv_heads'\) is not divisible .* tensor=2; .* one of 1",
    ):
        parameter_shardings(params, make_mesh({"fsdp": 4, "tensor": 2}))


def test_unknown_logical_axis() -> None:
    params = nnx.State({"w": nnx.Param(np.zeros((4, 4)), axes=("embed", "colour"))})
    with pytest.raises(ValueError, match=r"parameter w: no rule for logical axes \['colour'\]"):
        parameter_shardings(params, make_mesh({"fsdp": 8}))


def test_two_axes_of_a_parameter_on_one_mesh_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETER_RULES, "head_dim", "tensor")
    message = (
        r"k\.kernel: its axes 'kv_heads' and 'head_dim' both lie on mesh axis 'tensor'; give one .* PARAMETER_RULES"
    )
    with pytest.raises(ValueError, match=message):
        parameter_shardings(abstract_params(), make_mesh({"fsdp": 4, "tensor": 2}))


def test_two_axes_of_an_activation_on_one_mesh_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATION_RULES, "time", "fsdp")
    with (
        jax.set_mesh(make_mesh({"fsdp": 8})),
        activation_rules(),
        pytest.raises(ValueError, match="'batch' and 'time' both lie on mesh axis 'fsdp'; .*/rules.py"),
    ):
        constrain(jnp.zeros((8, 8, 2)), "batch", "time", "embed")


@pytest.mark.parametrize(
    ("sizes", "devices_of_each", "shares"),
    [
        ((1, 8, 1, 1), 2, [0, 1, 2, 3]),
        ((2, 2, 1, 2), 2, [0, 1, 2, 3]),
        ((1, 2, 4, 1), 2, [0, 0, 1, 1]),  # two processes share rows: one has their beginnings, one their ends
        ((1, 1, 4, 2), 2, [0, 0, 0, 0]),
        ((1, 4, 1, 2), 8, [0]),
    ],
)
def test_processes_read_the_rows_of_their_devices(
    sizes: tuple[int, ...], devices_of_each: int, shares: list[int]
) -> None:
    mesh: Any = SimpleNamespace(axis_names=AXES, shape=dict(zip(AXES, sizes)))
    devices = [SimpleNamespace(process_index=i // devices_of_each) for i in range(8)]
    mesh.devices = np.array(devices).reshape(sizes)
    found = [share_of_rows(mesh, process) for process in range(len(shares))]
    assert found == [{"process_index": i, "process_count": len(set(shares))} for i in shares]


def test_processes_that_share_some_rows() -> None:
    mesh: Any = SimpleNamespace(axis_names=AXES, shape=dict(zip(AXES, (1, 2, 3, 1))))
    mesh.devices = np.array([SimpleNamespace(process_index=i // 2) for i in range(6)]).reshape(1, 2, 3, 1)
    with pytest.raises(ValueError, match="hold a part of another's rows; choose sequence × tensor"):
        share_of_rows(mesh, 0)


def test_mesh_fills_the_open_axis() -> None:
    assert dict(make_mesh({"fsdp": -1, "tensor": 2}).shape) == {"replica": 1, "fsdp": 4, "sequence": 1, "tensor": 2}
    assert dict(make_mesh({"fsdp": -1}, jax.devices()[:1]).shape) == dict.fromkeys(AXES, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"fsdp": 3}, "needs 3 devices, 8 are here"),
        ({"fsdp": -1, "tensor": 3}, "needs 6 devices, 8 are here"),
        ({"fsdp": -1, "tensor": -1}, "at most one of them -1"),
        ({"fsdp": 0}, "sizes must be positive"),
        ({"fsdp": -2}, "sizes must be positive"),
        ({"fsdp": 4, "tensors": 2}, r"unknown axes \['tensors'\]; the axes are replica, fsdp, sequence, tensor"),
    ],
)
def test_bad_meshes(shape: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_mesh(shape)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip as ``make_mesh`` sees it."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5"
    core_on_chip: int = 0
    process_index: int = 0


def chips(torus: tuple[int, int, int], slices: int = 1) -> Any:
    """Chips of some slices, in no good order."""
    places = [(s, tuple(map(int, at))) for s in range(slices) for at in np.ndindex(torus)]
    found = [Chip(i, coords, s) for i, (s, coords) in enumerate(places)]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def test_slices_hold_whole_replicas() -> None:
    """Devices that share parameters are never of two slices, which the data centre's network alone joins."""
    for shape in ({"replica": 2, "fsdp": 8}, {"replica": 4, "fsdp": 2, "tensor": 2}):
        mesh = make_mesh(shape, chips((2, 2, 2), slices=2))
        assert len(set(mesh.devices.flat)) == 16
        assert all(len({chip.slice_index for chip in replica.flat}) == 1 for replica in mesh.devices)
    with pytest.raises(ValueError, match=r"replica=1 on 2 slices.*set mesh.replica=2, or a multiple"):
        make_mesh({"fsdp": -1}, chips((2, 2, 2), slices=2))


def test_axes_that_cut_the_torus() -> None:
    """Eight replicas of eight chips in 4 × 4 × 4, of whose sides no two make eight."""
    mesh = make_mesh({"replica": 8, "fsdp": 8}, chips((4, 4, 4)))
    assert mesh.devices.shape == (8, 8, 1, 1)
    assert len(set(mesh.devices.flat)) == 64
