"""A phase up to its updates: prompts, completions, rewards, advantages."""

import dataclasses
from typing import Any

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.data import Prompts, PromptStream
from c2s_jax.generation import Sampler, Samples, Sampling
from c2s_jax.rl import rollout
from c2s_jax.rl.advantages import Advantages, group_advantages
from c2s_jax.rl.loss import token_weights
from c2s_jax.rl.options import GRPOOptions
from c2s_jax.rl.packing import Packing, pack
from c2s_jax.rl.rewards import Completions, Rewards, Scored, World
from c2s_jax.text import Tokenizer


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Completions of a phase before they are scored.

    Attributes
    ----------
    prompts, samples
        What was asked, and what was answered.
    mask
        Tokens of completions, float32 [N, C].
    packing
        Where they are in the batches.
    batches
        What ``Packing.batches`` gives, one for each optimizer step of an iteration.
    """

    prompts: Prompts
    samples: Samples
    mask: NDArray[np.float32]
    packing: Packing
    batches: list[dict[str, NDArray]]


@dataclasses.dataclass(frozen=True)
class Experience:
    """Scored completions; ``batches`` have ``advantages`` and ``weights`` [R, K], in the places of the rollout's."""

    completions: Completions
    scored: Scored
    advantages: Advantages
    batches: list[dict[str, NDArray]]


class Phases:
    """Makes the phases of a run; phase n depends on the weights, the settings and n alone.

    Parameters
    ----------
    prompts
        Phase n answers prompts ``n · P`` to ``(n + 1) · P``.
    sampler
        Of the model that is trained.
    rewards
        Scores completions.
    world
        What rewards look things up in.
    tokenizer
        Decodes completions.
    options
        Of GRPO.
    multiple
        Of which the rows of a batch are a multiple, see ``pack``.
    """

    def __init__(
        self,
        prompts: PromptStream,
        sampler: Sampler,
        rewards: Rewards,
        world: World,
        tokenizer: Tokenizer,
        options: GRPOOptions,
        *,
        multiple: int = 1,
    ):
        self._multiple = multiple
        self._prompts, self._sampler, self._rewards, self._world = prompts, sampler, rewards, world
        self._tokenizer, self._options = tokenizer, options
        self._sampling = Sampling(temperature=options.temperature)

    def sample(self, weights: nnx.State, number: int, **progress: Any) -> Rollout:
        """Sample the completions of a phase."""
        o = self._options
        prompts = self._prompts.take(number * o.prompts, o.prompts)
        samples = self._sampler(
            weights,
            prompts.tokens,
            max_new_tokens=o.max_completion_length,
            sampling=self._sampling,
            seed=self._world.seed,
            prompt_ids=number * o.prompts + np.arange(o.prompts),
            samples_per_prompt=o.num_generations,
            **progress,
        )
        arrays = rollout.arrays(
            prompts.tokens,
            samples.tokens,
            samples.lengths,
            samples.logprobs,
            o.num_generations,
            pad_id=self._tokenizer.pad_id,
        )
        packing = pack(arrays, parts=o.minibatches, multiple=self._multiple)
        return Rollout(prompts, samples, arrays["mask"], packing, packing.batches(arrays))

    def score(self, found: Rollout, number: int) -> Experience:
        """Reward completions, and make of it what the update needs.

        Raises
        ------
        ValueError
            See ``Rewards``.
        """
        o, group = self._options, self._options.num_generations
        decode = self._tokenizer.decode
        references = [decode(ids.tolist()) for ids in found.prompts.references]
        completions = Completions(
            self._world,
            found.samples.texts(decode),
            [text for text in references for _ in range(group)],
            [task for task in found.prompts.tasks for _ in range(group)],
            np.repeat(found.prompts.cells, group),
            number * o.completions + np.arange(o.completions),
            found.samples.lengths,
            ~found.samples.stopped,
            group,
        )
        scored = self._rewards(completions)
        advantages = group_advantages(scored.total, group, scale=o.scale_rewards)
        kept = np.isfinite(scored.total)
        if o.mask_truncated_completions:
            kept &= ~completions.truncated
        if o.drop_zero_variance:
            kept &= ~np.repeat(advantages.zero_variance, group)
        weights = token_weights(found.mask, kept, o)
        return Experience(
            completions, scored, advantages, found.packing.lay(weights=weights, advantages=advantages.values)
        )


def health(experience: Experience) -> dict[str, float]:
    """What tells whether learning goes well, by name: rewards, lengths, diversity."""
    scored, completions = experience.scored, experience.completions
    there = np.isfinite(scored.total)
    groups = scored.total.reshape(-1, completions.num_generations)
    deviations = np.nanstd(groups, axis=1, ddof=1) if there.any() else np.zeros(1)
    lists = completions.genes
    written = np.concatenate([np.empty(0, np.int32), *lists])
    out = {
        "reward": _mean(scored.total),
        "reward_std": float(np.nanmean(deviations)),
        "reward_masked": float(np.mean(~there)),
        "groups_without_variance": float(np.mean(experience.advantages.zero_variance)),
        "length": float(np.mean(completions.lengths)),
        "length_max": float(np.max(completions.lengths)),
        "truncated": float(np.mean(completions.truncated)),
        "distinct_completions": len(set(completions.texts)) / len(completions),
        "genes_per_completion": float(np.mean([len(ids) for ids in lists])),
        "unique_genes": float(len(np.unique(written))),
    }
    return out | {f"reward/{name}": _mean(values) for name, values in scored.parts.items()}


def _mean(values: NDArray[np.float64]) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")
