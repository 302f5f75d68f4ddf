"""From logits to a token: temperature, top-k, top-p."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEVER = -1.0e30


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 leave the distribution whole.

    Filters apply in the order temperature, top-k, top-p (Holtzman et al. 2020, arXiv:1904.09751).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"need temperature >= 0, top_k >= 0, 0 < top_p <= 1; got {self}")


def log_distribution(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Log-probabilities of the distribution that is sampled from; greedy reports the model's own."""
    if sampling.temperature:
        logits = logits / sampling.temperature
        if sampling.top_k:
            kept = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0]
            logits = jnp.where(logits < kept[:, -1:], NEVER, logits)
        if sampling.top_p < 1:
            logits = jnp.where(logits < _nucleus_floor(logits, sampling.top_p), NEVER, logits)
    return jax.nn.log_softmax(logits, axis=-1)


def draw(log_p: Float[Array, "B V"], keys: Array, sampling: Sampling) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """One token a row, each from its own key, and its log-probability."""
    if sampling.temperature:
        token = jax.vmap(jax.random.categorical)(keys, log_p)
    else:
        token = jnp.argmax(log_p, axis=-1)
    return token.astype(jnp.int32), jnp.take_along_axis(log_p, token[:, None], axis=-1)[:, 0]


def _nucleus_floor(logits: Float[Array, "B V"], top_p: float) -> Float[Array, "B 1"]:
    """Smallest logit inside the smallest set of tokens whose probability reaches ``top_p``."""
    ordered = -jnp.sort(-logits, axis=-1)
    before = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1) - jax.nn.softmax(ordered, axis=-1)
    return jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
