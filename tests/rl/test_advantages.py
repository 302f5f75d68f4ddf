"""Advantages and token weights where the comparison with TRL has nothing to say."""

import numpy as np
import pytest

from c2s_jax.rl import GRPOOptions, group_advantages
from c2s_jax.rl.loss import token_weights


def test_groups_without_variance_have_no_advantage() -> None:
    found = group_advantages(np.array([0.1, 0.1, 0.1, 0.3, 0.5, 0.7]), 3)
    np.testing.assert_array_equal(found.zero_variance, [True, False])
    np.testing.assert_allclose(found.values, [0, 0, 0, -1, 0, 1], atol=1e-3)


def test_a_completion_without_reward_takes_no_part() -> None:
    """The others are as if it were not there."""
    found = group_advantages(np.array([1.0, np.nan, 3.0, 8.0, 0.0, 1.0, 2.0, 3.0]), 4).values
    alone = group_advantages(np.array([1.0, 3.0, 8.0]), 3).values
    np.testing.assert_allclose(found[[0, 2, 3]], alone, rtol=1e-6)
    assert found[1] == 0
    assert not group_advantages(np.full(4, np.nan), 4).values.any()


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_weights_of_several_steps(loss_type: str) -> None:
    """Each step's weights are those of its completions alone, but for "dapo", which counts tokens of the phase."""
    options = GRPOOptions(prompts=2, num_generations=4, minibatches=2, max_completion_length=5, loss_type=loss_type)
    lengths = np.array([1, 5, 2, 3, 4, 4, 1, 2])
    mask = (np.arange(5) < lengths[:, None]).astype(np.float32)
    kept = np.array([True, True, False, True, True, True, True, False])
    weights = token_weights(mask, kept, options)
    counted = np.where(kept, lengths, 0)
    each = {
        "grpo": 1 / (4 * lengths),
        "bnpo": np.repeat(1 / counted.reshape(2, 4).sum(1), 4),
        "dapo": np.full(8, 2 / counted.sum()),
        "dr_grpo": np.full(8, 1 / (4 * 5)),
    }[loss_type]
    np.testing.assert_allclose(weights, mask * (kept * each)[:, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(loss_type="ppo"), "grpo.loss_type='ppo' is not one of grpo"),
        (dict(num_generations=1), "needs at least 2"),
        (dict(temperature=0.0), "must be positive"),
        (dict(prompts=3, minibatches=5), "do not divide into minibatches=5"),
        (dict(beta=-0.1), "need beta >= 0"),
        (dict(reward_errors="ignore"), "stop, mask"),
        (dict(prompts=0), "grpo.prompts=0 must be at least 1"),
    ],
)
def test_nonsense_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPOOptions(**wrong)
