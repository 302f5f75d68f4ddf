"""What can be chosen about GRPO. Names, defaults and meanings are those of TRL's ``GRPOConfig`` where it has them."""

import dataclasses
from typing import Literal

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
Scale = Literal["group", "batch", "none"]
Level = Literal["token", "sequence"]

CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "reward_errors": ("stop", "mask"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPOOptions:
    """Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300, section 4).

    A phase samples ``num_generations`` completions of each of ``prompts`` prompts, scores them and makes
    ``num_iterations × minibatches`` optimizer steps with them.

    Attributes
    ----------
    prompts
        Prompts a phase.
    num_generations
        Completions a prompt (G); they are one group.
    max_completion_length
        Most tokens of a completion.
    temperature
        Of sampling, and of the log-probabilities that the loss is made of.
    beta
        Weight of the KL divergence from the reference model; at 0 there is no reference.
    epsilon_low, epsilon_high
        Ratios of probabilities are clipped to ``[1 - epsilon_low, 1 + epsilon_high]``.
    loss_type
        How token losses become one number (``loss.token_weights``).
    scale_rewards
        What advantages are divided by: the standard deviation of the group, of the batch, or nothing.
    num_iterations
        Times that the completions of a phase are used (μ).
    minibatches
        Parts into which they are cut, each an optimizer step.
    importance_sampling_level
        Ratios of tokens, or of whole completions (GSPO; Zheng et al. 2025, arXiv:2507.18071).
    mask_truncated_completions
        Leave completions that reached ``max_completion_length`` out of the loss.
    drop_zero_variance
        Leave groups whose rewards are all the same out of the loss, which have no advantage but a KL term. Counted in
        any case.
    kl_importance_correction
        Multiply the KL term by the ratio, which makes it unbiased after the first step of a phase.
    reward_errors
        What becomes of a completion whose reward raises or is not finite: ``"stop"`` the run, or ``"mask"`` it, which
        leaves it out of its group's mean and gives it no advantage.
    max_logprob_gap
        Largest mean difference between the sampler's log-probabilities of the tokens of a phase and those of the
        training pass; a larger one stops the run, because it would learn from what it did not sample.
    """

    prompts: int = 8
    num_generations: int = 8
    max_completion_length: int = 512
    temperature: float = 1.0
    beta: float = 0.0
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    loss_type: LossType = "dapo"
    scale_rewards: Scale = "group"
    num_iterations: int = 1
    minibatches: int = 1
    importance_sampling_level: Level = "token"
    mask_truncated_completions: bool = False
    drop_zero_variance: bool = False
    kl_importance_correction: bool = True
    reward_errors: Literal["stop", "mask"] = "stop"
    max_logprob_gap: float = 0.05

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"grpo.{name}={getattr(self, name)!r} is not one of {', '.join(allowed)}")
        for name in ("prompts", "max_completion_length", "num_iterations", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"grpo.{name}={getattr(self, name)} must be at least 1")
        if self.num_generations < 2:
            raise ValueError(f"grpo.num_generations={self.num_generations}: a group needs at least 2 completions")
        if self.temperature <= 0:
            raise ValueError(f"grpo.temperature={self.temperature} must be positive: a greedy group is all alike")
        if self.beta < 0 or not 0 <= self.epsilon_low < 1 or self.epsilon_high < 0:
            raise ValueError("grpo: need beta >= 0, 0 <= epsilon_low < 1 and epsilon_high >= 0")
        if self.completions % self.minibatches:
            raise ValueError(
                f"grpo: prompts × num_generations = {self.completions} completions do not divide into "
                f"minibatches={self.minibatches}"
            )

    @property
    def completions(self) -> int:
        """Completions a phase."""
        return self.prompts * self.num_generations

    @property
    def updates(self) -> int:
        """Optimizer steps a phase."""
        return self.num_iterations * self.minibatches
