"""The loss of GRPO: a number a token, and what each token weighs. Letters as of ``packing``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from c2s_jax.rl.options import GRPOOptions


class TokenLoss(NamedTuple):
    """Of completion tokens in R rows.

    Attributes
    ----------
    loss
        float32 [R, K].
    kl
        Estimate of the divergence from the reference, float32 [R, K]; 0 without one.
    clipped_low, clipped_high
        Where the ratio left the range and the gradient is cut, float32 [R, K] of 0 and 1.
    """

    loss: Array
    kl: Array
    clipped_low: Array
    clipped_high: Array


def token_loss(
    logprobs: Float[Array, "R K"],
    old_logprobs: Float[Array, "R K"],
    ref_logprobs: Float[Array, "R K"] | None,
    advantages: Float[Array, "R K"],
    mask: Float[Array, "R K"],
    owner: Int[Array, "R K"],
    options: GRPOOptions,
) -> TokenLoss:
    """The clipped surrogate plus ``beta`` times the divergence from the reference.

    ``-min(r·A, clip(r)·A) + beta · kl``, with the ratio ``r = exp(logprobs - old_logprobs)`` of a token, or of the
    completion (tokens of a row with one ``owner``) as the geometric mean over its tokens, and
    ``kl = exp(ref - new) - (ref - new) - 1`` (Schulman's k3).

    References
    ----------
    Shao et al. 2024, arXiv:2402.03300, equations 3 and 4; Zheng et al. 2025, arXiv:2507.18071, equation 6.
    """
    log_ratio = logprobs - old_logprobs
    if options.importance_sampling_level == "sequence":
        log_ratio = _mean_of_completion(log_ratio, mask, owner)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - options.epsilon_low, 1 + options.epsilon_high)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    kl = jnp.zeros_like(loss)
    if ref_logprobs is not None:
        behind = ref_logprobs - logprobs
        kl = jnp.exp(behind) - behind - 1
        if options.kl_importance_correction:
            kl = kl * ratio
        loss = loss + options.beta * kl
    low = (ratio < 1 - options.epsilon_low) & (advantages < 0)
    high = (ratio > 1 + options.epsilon_high) & (advantages > 0)
    return TokenLoss(loss, *(jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (kl, low, high)))


def _mean_of_completion(
    values: Float[Array, "R K"], mask: Float[Array, "R K"], owner: Int[Array, "R K"]
) -> Float[Array, "R K"]:
    """Of each token the mean over its completion's tokens."""
    completion = jnp.arange(values.shape[0])[:, None] * values.shape[1] + owner  # each has a token, so that K suffice
    sums = jax.ops.segment_sum(jnp.where(mask > 0, values, 0.0).ravel(), completion.ravel(), values.size)
    counts = jax.ops.segment_sum(mask.ravel(), completion.ravel(), values.size)
    return (sums / jnp.maximum(counts, 1.0))[completion]


def token_weights(mask: NDArray[np.floating], kept: NDArray[np.bool_], options: GRPOOptions) -> NDArray[np.float32]:
    """What each token's loss weighs in the loss of its optimizer step, float32 [N, C]; a step's loss is the sum.

    The weights of a step do not depend on how it is cut into micro-batches or spread over devices.

    Parameters
    ----------
    mask
        Tokens of the N completions of a phase, 1 or 0, [N, C].
    kept
        Completions that take part, bool [N].
    options
        ``loss_type`` says what is equal: completions (``"grpo"``: mean over a completion's tokens, then over
        completions), tokens of the step (``"bnpo"``), tokens of the phase (``"dapo"``; Yu et al. 2025,
        arXiv:2503.14476), or places of tokens, used or not (``"dr_grpo"``; Liu et al. 2025, arXiv:2503.20783).
        Completions that do not take part still count in the number of completions.
    """
    mask = mask * kept[:, None]
    steps = mask.reshape(options.minibatches, -1, mask.shape[1])
    tokens = steps.sum((1, 2), keepdims=True)
    rows = steps.shape[1]
    if options.loss_type == "grpo":
        divisor = np.maximum(steps.sum(2, keepdims=True), 1) * rows
    elif options.loss_type == "bnpo":
        divisor = np.maximum(tokens, 1)
    elif options.loss_type == "dapo":
        divisor = np.maximum(tokens.sum(), 1) / options.minibatches
    else:
        divisor = np.asarray(rows * options.max_completion_length)
    return (steps / divisor).reshape(mask.shape).astype(np.float32)
