"""A tiny model, its run configuration and its batches, for tests of training on any mesh."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from c2s_jax.config import base
from c2s_jax.models import Gemma2Config

N_TASKS = 2

# Sizes that meshes of eight devices divide.
MODEL = Gemma2Config(
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
    final_softcap=10.0,
)


def run_config(**optimizer: float | str) -> ConfigDict:
    """A run of 100 steps with 10 of warm-up."""
    config = base()
    config.steps = 100
    config.optimizer.update(learning_rate=1e-2, warmup_steps=10, weight_decay=0.1)
    config.optimizer.update(optimizer)
    return config


def make_batch(rows: int = 8, time: int = 24, seed: int = 0) -> dict[str, Any]:
    """Packed rows of two examples and padding; weights differ within rows and much between them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, MODEL.vocab_size, (rows, time), np.int32)
    cuts = np.sort(rng.integers(3, time - 2, (rows, 2)), axis=1)
    at = np.arange(time)[None]
    segments = np.where(at < cuts[:, :1], 1, np.where(at < cuts[:, 1:], 2, 0)).astype(np.int32)
    starts = np.where(segments == 2, cuts[:, :1], np.where(segments == 0, cuts[:, 1:], 0))
    weights = rng.random((rows, time)) * (segments > 0) * (rng.random((rows, time)) < 0.7)
    weights *= np.geomspace(0.1, 10.0, rows)[:, None]
    return {
        "tokens": tokens,
        "targets": rng.integers(1, MODEL.vocab_size, (rows, time), np.int32),
        "loss_weights": weights.astype(np.float32),
        "positions": (at - starts).astype(np.int32),
        "segment_ids": segments,
        "task_ids": ((segments + np.arange(rows)[:, None]) % N_TASKS).astype(np.int32),
    }


def named(tree: Any) -> dict[str, NDArray]:
    """Leaves of a tree by path, on the host."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}
