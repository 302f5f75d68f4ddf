"""The update on devices and in parts, log-probabilities of a reference, and the phase's own bookkeeping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import lora
from c2s_jax.parallel import make_mesh
from c2s_jax.rl import GRPOOptions, make_logprobs, make_update, rollout
from c2s_jax.rl.loss import token_weights
from c2s_jax.rl.packing import pack
from c2s_jax.training import StatePlan
from c2s_jax.training.state import all_weights
from tests.toy import MODEL, named

OPTIONS = GRPOOptions(
    prompts=4, num_generations=4, max_completion_length=8, loss_type="grpo", beta=0.1, temperature=0.8
)
N, C = 16, 8


def batch(seed: int = 0) -> dict[str, NDArray]:
    """Completions of unequal lengths, whose log-probabilities were others when they were sampled."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, MODEL.vocab_size, n, np.int32) for n in (3, 9, 5, 2)]
    lengths = rng.integers(1, C + 1, N)
    tokens = rng.integers(1, MODEL.vocab_size, (N, C), np.int32)
    made = rollout.arrays(prompts, tokens, lengths, np.zeros((N, C), np.float32), 4, pad_id=0)
    drift = rng.normal(-4.0, 0.5, (2, N, C)).astype(np.float32)
    packing = pack(made, multiple=8)
    more = packing.lay(
        advantages=rng.normal(size=N).astype(np.float32),
        weights=token_weights(made["mask"], np.ones(N, bool), OPTIONS),
        old=drift[0],
        reference=drift[1],
    )
    return packing.batches(made)[0] | more[0]


def update(mesh_shape: dict[str, int], accumulate: int) -> tuple[dict[str, NDArray], dict[str, float]]:
    """Parameters and metrics after one step."""
    devices = int(np.prod(list(mesh_shape.values())))
    mesh = make_mesh(mesh_shape, jax.devices()[:devices])
    optimizer = optax.sgd(1.0)
    plan = StatePlan(MODEL, optimizer, mesh)
    step = make_update(
        plan.graphdef, optimizer, mesh, plan.shardings, OPTIONS, vocab_size=MODEL.vocab_size, accumulate=accumulate
    )
    state, metrics = step(plan.create(0), batch())
    return named(state.params), jax.device_get(metrics)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, NDArray], dict[str, float]]:
    return update({"fsdp": 1}, 1)


@pytest.mark.parametrize(("mesh", "accumulate"), [({"fsdp": 1}, 4), ({"fsdp": 4, "tensor": 2}, 2)])
def test_parts_and_devices_change_nothing(whole, mesh, accumulate) -> None:
    wanted, wanted_metrics = whole
    found, metrics = update(mesh, accumulate)
    assert metrics.keys() == wanted_metrics.keys()
    for name, value in wanted_metrics.items():
        assert value != 0 or name.startswith("clipped")
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_the_reference_of_an_adapter_is_its_base() -> None:
    """With a silent adapter, log-probabilities are the base model's, bit for bit, and the gradient is the adapter's."""
    mesh = make_mesh({"fsdp": 1}, jax.devices()[:1])
    plan = StatePlan(MODEL, optax.sgd(1.0), mesh, adapter=lora.LoRAConfig(rank=2))
    state = plan.create(0)
    trained = jax.tree.map(lambda x: x + 0.3, state.params)
    logprobs = make_logprobs(plan.graphdef, mesh, OPTIONS, vocab_size=MODEL.vocab_size, parts=2)
    silent = all_weights(jax.tree.map(jnp.zeros_like, trained), state.frozen)
    base = StatePlan(MODEL, optax.sgd(1.0), mesh)
    of_base = make_logprobs(base.graphdef, mesh, OPTIONS, vocab_size=MODEL.vocab_size, parts=2)
    made = batch()
    reference = np.asarray(logprobs(silent, made))
    np.testing.assert_array_equal(reference, np.asarray(of_base(state.frozen, made)))
    assert (
        np.abs(reference - np.asarray(logprobs(all_weights(trained, state.frozen), made)))[made["mask"] > 0].max() > 0.1
    )
    assert isinstance(state.params, nnx.State)
