"""A tiny Gemma-2 whose every feature counts, full passes of it, and distributions in plain numpy."""

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.generation import Sampling
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import make_mesh

CONFIG = Gemma2Config(
    vocab_size=64,
    embed_dim=16,
    ffw_dim=32,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    query_pre_attn_scalar=5.0,
    sliding_window=8,
    attn_softcap=2.0,
    final_softcap=4.0,
)
LENGTHS = (3, 8, 9, 30, 17)  # prompts shorter than, as long as and longer than the window, in one bucket

TinyModel = tuple[nnx.GraphDef, nnx.State]


def make_model() -> TinyModel:
    """Weights twice as large as they start, so that distributions are uneven."""
    graphdef, params = nnx.split(Gemma2(CONFIG, rngs=nnx.Rngs(3)))
    return graphdef, jax.tree.map(lambda p: p * 2.0, params)


def make_prompts() -> list[NDArray]:
    """One prompt for each of ``LENGTHS``."""
    rng = np.random.default_rng(0)
    return [rng.integers(1, CONFIG.vocab_size, n, np.int32) for n in LENGTHS]


def one_device() -> jax.sharding.Mesh:
    """A mesh of the first device."""
    return make_mesh({"fsdp": 1}, jax.devices()[:1])


class Teacher:
    """Full forward passes, all of one padded shape."""

    def __init__(self, model: TinyModel, longest: int = 48):
        self.params, self.longest = model[1], longest
        self.forward = jax.jit(lambda p, t: nnx.merge(model[0], p)(t))

    def __call__(self, tokens: NDArray) -> NDArray:
        padded = np.zeros((1, self.longest), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(self.forward(self.params, padded))[0, : len(tokens)]


def distribution(logits: NDArray, sampling: Sampling) -> NDArray:
    """Log-probabilities [V] of what is sampled from, token by token in float64."""
    order = np.argsort(-logits, kind="stable")
    logits = logits.astype(np.float64) / (sampling.temperature or 1.0)
    if sampling.temperature and sampling.top_k:
        logits[order[sampling.top_k :]] = -np.inf
    if sampling.temperature and sampling.top_p < 1:
        p = np.exp(logits - logits.max())
        p /= p.sum()
        mass, kept = 0.0, []
        for token in order:
            kept.append(token)
            mass += p[token]
            if mass >= sampling.top_p:
                break
        logits[np.setdiff1d(order, kept)] = -np.inf
    if sampling.temperature and sampling.min_p:
        p = np.exp(logits - logits.max())
        logits[p / p.sum() < sampling.min_p * (p / p.sum()).max()] = -np.inf
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())
