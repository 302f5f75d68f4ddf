"""From logits to a token: temperature, top-k, top-p, min-p."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEVER = -1.0e30
BLOCK = 512  # tokens whose probabilities are summed together before one is drawn


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 leave the distribution whole. Filters apply in
    the order temperature, top-k, top-p (Holtzman et al. 2020, arXiv:1904.09751), min-p (Nguyen et al. 2024,
    arXiv:2407.01082: tokens of at least ``min_p`` times the largest probability stay).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(f"need temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1; got {self}")


def log_distribution(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Log-probabilities of the distribution that is sampled from; greedy reports the model's own."""
    if sampling.temperature:
        # A mask must survive a low temperature as it is.
        logits = jnp.where(logits > NEVER, logits / sampling.temperature, NEVER)
        if sampling.top_k:
            kept = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0]
            logits = jnp.where(logits < kept[:, -1:], NEVER, logits)
        if sampling.top_p < 1:
            logits = jnp.where(logits < _nucleus_floor(logits, sampling.top_p), NEVER, logits)
        if sampling.min_p:
            floor = logits.max(axis=-1, keepdims=True) + jnp.log(sampling.min_p)
            logits = jnp.where(logits < floor, NEVER, logits)
    return jax.nn.log_softmax(logits, axis=-1)


def draw(log_p: Float[Array, "B V"], keys: Array, sampling: Sampling) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """One token a row, each from its own key, and its log-probability."""
    if sampling.temperature:
        token = _categorical(log_p, keys)
    else:
        token = jnp.argmax(log_p, axis=-1)
    return token.astype(jnp.int32), jnp.take_along_axis(log_p, token[:, None], axis=-1)[:, 0]


def _categorical(log_p: Float[Array, "B V"], keys: Array) -> Int[Array, "B"]:
    """Tokens drawn by inverting the distribution function, of blocks first and then within a block.

    Two random numbers a row, where Gumbel noise needs one a token; two, so that rare tokens of a large vocabulary
    keep their share in float32.
    """
    rows, size = log_p.shape
    p = jnp.pad(jnp.exp(log_p), ((0, 0), (0, -size % BLOCK))).reshape(rows, -1, BLOCK)
    u = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    block = _invert(p.sum(axis=-1), u[:, 0])
    within = jnp.take_along_axis(p, block[:, None, None], axis=1)[:, 0]
    return block * BLOCK + _invert(within, u[:, 1])


def _invert(weights: Float[Array, "B X"], u: Float[Array, "B"]) -> Int[Array, "B"]:
    """First index at which the running sum exceeds the share ``u`` of the total; never one without weight."""
    total = jnp.cumsum(weights, axis=-1)
    hit = (total > u[:, None] * total[:, -1:]) & (weights > 0)
    return jnp.where(hit.any(axis=-1), jnp.argmax(hit, axis=-1), jnp.argmax(weights, axis=-1))


def _nucleus_floor(logits: Float[Array, "B V"], top_p: float) -> Float[Array, "B 1"]:
    """Smallest logit inside the smallest set of tokens whose probability reaches ``top_p``."""
    ordered = -jnp.sort(-logits, axis=-1)
    before = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1) - jax.nn.softmax(ordered, axis=-1)
    return jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
