"""Advantages, loss and gradients against TRL's on the same model, prompts, completions and rewards."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.rl import GRPOOptions, group_advantages, rollout
from c2s_jax.rl.loss import token_weights
from c2s_jax.rl.packing import pack
from c2s_jax.rl.step import completion_logprobs, weighted_loss
from tests.models.hf_weights import TINY, hf_model, our_model, parameters
from tests.rl.trl_oracle import EOS, PAD, Case, loss_and_gradients, scored, trainer

CASE = Case.random(TINY.vocab_size)
VISIBLE = 1e-3  # what a wrong loss must at least differ by, relative


@pytest.fixture(scope="module")
def theirs() -> Any:
    model = hf_model(TINY)
    model.config.pad_token_id, model.config.eos_token_id = PAD, EOS
    return model


@pytest.fixture(scope="module")
def drift() -> tuple[NDArray, NDArray]:
    """How far old and reference log-probabilities are from the present ones, [N, C]: both ends of the clip are hit."""
    rng = np.random.default_rng(5)
    shape = (len(CASE.completions), CASE.limit)
    rows = rng.normal(0, 0.3, (shape[0], 1))  # whole completions drift, too
    return np.float32(rows + rng.normal(0, 0.3, shape)), np.float32(rng.normal(0, 0.5, shape))


def our_batch(options: GRPOOptions, old: NDArray, reference: NDArray) -> dict[str, NDArray]:
    """The case as our loss takes it."""
    prompts = [np.array(p, np.int32) for p in CASE.prompts]
    lengths = np.array([len(c) for c in CASE.completions])
    tokens = np.full((len(lengths), CASE.limit), PAD, np.int32)
    for row, completion in zip(tokens, CASE.completions):
        row[: len(completion)] = completion
    stopped = np.array([c[-1] == EOS for c in CASE.completions])
    batch = rollout.arrays(prompts, tokens, lengths, np.zeros(tokens.shape, np.float32), CASE.group, pad_id=PAD)
    kept = stopped if options.mask_truncated_completions else np.ones(len(lengths), bool)
    packing, mask = pack(batch), batch["mask"] * kept[:, None]
    advantages = group_advantages(CASE.rewards, CASE.group, scale=options.scale_rewards).values
    more = {"mask": mask, "weights": token_weights(mask, kept, options), "advantages": advantages, "old": old}
    return packing.batches(batch)[0] | packing.lay(**more, **({"reference": reference} if options.beta else {}))[0]


class Ours:
    """Our loss under the same weights; one program a temperature serves all options."""

    def __init__(self, theirs: Any):
        self._graphdef, self._params = nnx.split(our_model(theirs, TINY))
        self._logprobs = jax.jit(self._run, static_argnums=2)
        self._pull = jax.jit(self._vjp, static_argnums=2)

    def loss(self, options: GRPOOptions, batch: dict[str, NDArray]) -> float:
        logprobs, entropy = self._logprobs(self._params, _asked(batch), options.temperature)
        return float(weighted_loss(logprobs, entropy, batch, options)[0])

    def gradients(self, options: GRPOOptions, batch: dict[str, NDArray]) -> dict[str, NDArray]:
        logprobs, entropy = self._logprobs(self._params, _asked(batch), options.temperature)
        cotangent = jax.grad(lambda x: weighted_loss(x, entropy, batch, options)[0])(logprobs)
        return parameters(self._pull(self._params, _asked(batch), options.temperature, cotangent))

    def _run(self, params: nnx.State, batch: Any, temperature: float) -> Any:
        options = GRPOOptions(temperature=temperature)
        return completion_logprobs(nnx.merge(self._graphdef, params), batch, options, TINY.vocab_size)

    def _vjp(self, params: nnx.State, batch: Any, temperature: float, cotangent: jax.Array) -> nnx.State:
        _, pull = jax.vjp(lambda p: self._run(p, batch, temperature)[0], params)
        return pull(cotangent)[0]


def _asked(batch: dict[str, NDArray]) -> dict[str, NDArray]:
    return {name: batch[name] for name in ("tokens", "positions", "segment_ids", "at", "completions")}


@pytest.fixture(scope="module")
def ours(theirs: Any) -> Ours:
    return Ours(theirs)


OPTIONS: dict[str, dict[str, Any]] = {
    "grpo": dict(loss_type="grpo"),
    "bnpo": dict(loss_type="bnpo"),
    "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none"),
    "dapo": dict(loss_type="dapo", epsilon_high=0.28),
    "batch": dict(scale_rewards="batch", temperature=0.7),
    "sequence": dict(importance_sampling_level="sequence", loss_type="grpo", epsilon_low=0.05, epsilon_high=0.05),
    "kl": dict(beta=0.3, temperature=1.3),
    "kl, biased": dict(beta=0.3, kl_importance_correction=False),
    "truncated": dict(mask_truncated_completions=True, loss_type="grpo", beta=0.1),
}
TRL_NAMES = {"epsilon_low": "epsilon", "kl_importance_correction": "use_bias_correction_kl"}
OTHER = {"loss_type": "dr_grpo"}  # than the default, from which some cannot be told in a phase of one step


@pytest.mark.parametrize("name", OPTIONS)
def test_loss_and_gradients(name: str, theirs: Any, ours: Ours, drift: tuple[NDArray, NDArray], tmp_path: Any) -> None:
    """Every option as TRL has it; set to another value, it must show."""
    chosen = OPTIONS[name]
    made = trainer(theirs, tmp_path, CASE, **{TRL_NAMES.get(k, k): v for k, v in chosen.items() if k != "beta"})
    options = GRPOOptions(
        prompts=len(CASE.prompts), num_generations=CASE.group, max_completion_length=CASE.limit, **chosen
    )
    theirs_batch = scored(made, CASE)
    made.beta = options.beta  # only now: given from the start, TRL would load a reference model from a hub
    with torch.no_grad():
        ids = torch.cat([theirs_batch["prompt_ids"], theirs_batch["completion_ids"]], 1)
        mask = torch.cat([theirs_batch["prompt_mask"], theirs_batch["completion_mask"]], 1)
        now = made._get_per_token_logps_and_entropies(made.model, ids, mask, CASE.limit)[0].numpy()
    old, reference = (np.float32(now + d) for d in drift)
    theirs_batch["old_per_token_logps"] = torch.from_numpy(old)
    theirs_batch["ref_per_token_logps"] = torch.from_numpy(reference)
    wanted, gradients = loss_and_gradients(made, theirs_batch, TINY)

    batch = our_batch(options, old, reference)
    advantages = group_advantages(CASE.rewards, CASE.group, scale=options.scale_rewards).values
    np.testing.assert_allclose(advantages, theirs_batch["advantages"].numpy(), rtol=1e-5, atol=1e-6)
    assert len(batch["tokens"]) < len(CASE.completions)  # several in a row
    np.testing.assert_allclose(ours.loss(options, batch), wanted, rtol=1e-4, atol=1e-5)
    found = ours.gradients(options, batch)
    assert found.keys() == gradients.keys()
    for parameter, expected in gradients.items():
        scale = np.abs(expected).max()
        assert scale > 1e-6, parameter
        np.testing.assert_allclose(found[parameter], expected, rtol=0, atol=1e-4 * scale + 1e-7, err_msg=parameter)
    for key in chosen:
        other = OTHER.get(key, GRPOOptions.__dataclass_fields__[key].default)
        if other != chosen[key]:
            wrong = dataclasses.replace(options, **{key: other})
            assert not np.isclose(ours.loss(wrong, our_batch(wrong, old, reference)), wanted, rtol=VISIBLE, atol=0), key
