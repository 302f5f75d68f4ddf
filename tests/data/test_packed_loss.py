"""The loss of packed rows is that of their examples one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2s_jax.data import MixtureTask, PackedRows
from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.training.step import loss_sums

TASKS = (
    MixtureTask("cell_type_annotation", loss="response", response_weight=3.0),
    MixtureTask("cell_type_conditioned_generation"),
)


@pytest.fixture(scope="module")
def model(tokenizer) -> Gemma2:
    """Parameters that bite: large weights, a window shorter than the examples, low caps, grouped queries."""
    config = Gemma2Config(
        vocab_size=tokenizer.vocab_size,
        embed_dim=32,
        ffw_dim=64,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        query_pre_attn_scalar=4.0,
        sliding_window=8,
        attn_softcap=5.0,
        final_softcap=4.0,
        attention_chunk=64,
    )
    model = Gemma2(config, rngs=nnx.Rngs(0))
    nnx.update(model, jax.tree.map(lambda x: 1.5 * x, nnx.state(model, nnx.Param)))
    return model


@pytest.fixture(scope="module")
def block(make_cells, corpus_of, formatter) -> dict[str, np.ndarray]:
    return PackedRows(corpus_of(make_cells()), "train", TASKS, formatter, seq_len=256, rows_per_block=3, seed=0).block(
        0
    )


def nll(logits, batch) -> np.ndarray:
    """Weighted negative log-probability of every target, by log_softmax over the whole vocabulary."""
    logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(batch["targets"])[..., None], axis=-1)[..., 0]
    return np.asarray(-logprob * batch["loss_weights"])


def packed_sums(model, batch, **changes) -> dict[tuple[int, int], float]:
    given = {k: jnp.asarray(batch[k]) for k in ("tokens", "positions", "segment_ids")} | changes
    losses = nll(nnx.jit(lambda m: m(**given))(model), batch)
    return {
        (row, segment): float(losses[row][batch["segment_ids"][row] == segment].sum())
        for row in range(len(losses))
        for segment in range(1, batch["segment_ids"][row].max() + 1)
    }


@pytest.fixture(scope="module")
def alone(model, block) -> dict[tuple[int, int], float]:
    """Loss of every example in a row of its own, without segment ids and positions."""
    keys, columns = [], {name: [] for name in ("tokens", "targets", "loss_weights")}
    for row, segments in enumerate(block["segment_ids"]):
        for segment in range(1, segments.max() + 1):
            keys.append((row, segment))
            for name, column in columns.items():
                values = block[name][row][segments == segment]
                column.append(np.pad(values, (0, block["tokens"].shape[1] - len(values))))
    batch = {name: np.stack(column) for name, column in columns.items()}
    losses = nll(nnx.jit(lambda m, tokens: m(tokens))(model, jnp.asarray(batch["tokens"])), batch)
    return {key: float(x.sum()) for key, x in zip(keys, losses)}


def test_each_example(model, block, alone):
    assert len(alone) >= 6
    packed = packed_sums(model, block)
    assert packed.keys() == alone.keys()
    for key, expected in alone.items():
        assert packed[key] == pytest.approx(expected, rel=1e-5)


def test_training_loss_is_their_sum(model, block, alone):
    graphdef, params = nnx.split(model, nnx.Param)
    batch = {name: jnp.asarray(x) for name, x in block.items()}
    total, sums = jax.jit(lambda p, b: loss_sums(graphdef, p, b, len(TASKS), None))(params, batch)
    assert float(total) == pytest.approx(sum(alone.values()), rel=1e-5)
    task_of = {key: int(block["task_ids"][key[0]][block["segment_ids"][key[0]] == key[1]][0]) for key in alone}
    for task in range(len(TASKS)):
        expected = sum(x for key, x in alone.items() if task_of[key] == task)
        assert float(sums[0, task]) == pytest.approx(expected, rel=1e-5)
        assert float(sums[1, task]) == pytest.approx(block["loss_weights"][block["task_ids"] == task].sum(), rel=1e-6)


def test_segments_matter(model, block, alone):
    """The comparison above can fail: without segment ids, examples read their neighbours."""
    one = packed_sums(model, block, segment_ids=jnp.ones_like(block["segment_ids"]))
    off = [abs(one[key] / expected - 1) for key, expected in alone.items() if key[1] > 1]
    assert min(off) > 1e-4
