"""The jitted training and evaluation steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.ops import token_logprobs
from c2s_jax.parallel import InMesh, cut_rows, micro_batches
from c2s_jax.training.guards import guard_counts
from c2s_jax.training.state import TrainState, all_weights

Batch = dict[str, jax.Array]


def loss_sums(graphdef: nnx.GraphDef, weights: nnx.State, batch: Batch, n_tasks: int, key: jax.Array | None) -> Any:
    """Weighted sum of negative log-probabilities, and (loss, weight) sums a task, shape [2, n_tasks]."""
    model = nnx.merge(graphdef, weights)
    hidden = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"], dropout_key=key)
    table = model.output_table.astype(hidden.dtype)
    logprob, _ = token_logprobs(hidden, table, batch["targets"], softcap=model.config.final_softcap)
    loss_weights = batch["loss_weights"]
    by_task = jax.nn.one_hot(batch["task_ids"], n_tasks, dtype=jnp.float32)
    sums = jnp.einsum("XBT,BTN->XN", jnp.stack([-logprob * loss_weights, loss_weights]), by_task)
    return sums[0].sum(), sums


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    *,
    n_tasks: int,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    dropout_seed: int | None = None,
) -> InMesh:
    """Build ``(state, batch) -> (state, metrics)``: the state is donated, metrics stay on device.

    The batch is cut into ``accumulate`` micro-batches, on processors more (``micro_batches``); loss sums and weights
    are added over all of them and divided once, so that the gradient is that of the whole batch whatever the cut.
    Dropout is on when ``dropout_seed`` is given, keyed by it, the step and the micro-batch.
    """

    update = optax.with_extra_args_support(optimizer).update

    def grads_of(state: TrainState, batch: Batch, key: jax.Array | None) -> Any:
        def loss(params: nnx.State) -> Any:
            return loss_sums(graphdef, all_weights(params, state.frozen), batch, n_tasks, key)

        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return sums, grads

    def accumulated(state: TrainState, batch: Batch, key: jax.Array | None) -> Any:
        parts = micro_batches(mesh, batch["tokens"].shape, accumulate)
        if parts == 1:
            return grads_of(state, batch, key)

        def add(carry: Any, xs: Any) -> Any:
            index, part = xs
            part_key = None if key is None else jax.random.fold_in(key, index)
            return jax.tree.map(jnp.add, carry, grads_of(state, part, part_key)), None

        zeros = (jnp.zeros((2, n_tasks)), jax.tree.map(jnp.zeros_like, state.params))
        return jax.lax.scan(add, zeros, (jnp.arange(parts), cut_rows(batch, parts)))[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(dropout_seed), state.step) if dropout_seed is not None else None
        sums, grads = accumulated(state, batch, key)
        total = jnp.maximum(sums[1].sum(), 1.0)
        grads = jax.tree.map(lambda g: g / total, grads)
        loss = sums[0].sum() / total
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, ema, params)
        metrics = {
            "loss": loss,
            "loss_by_task": sums[0] / sums[1],  # NaN for a task that this batch has no token of
            "gradient_norm": optax.tree.norm(grads),
            "tokens": jnp.count_nonzero(batch["segment_ids"]),
            **guard_counts(opt_state),
        }
        return TrainState(state.step + 1, params, opt_state, ema, state.frozen), metrics

    everywhere = NamedSharding(mesh, PartitionSpec())  # each process reads the metrics
    return InMesh(jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere)), mesh)


def make_eval_step(graphdef: nnx.GraphDef, mesh: Mesh, *, n_tasks: int) -> InMesh:
    """Build ``(weights, batch) -> [2, n_tasks]``: sums of loss and of weights a task."""

    def step(weights: nnx.State, batch: Batch) -> jax.Array:
        return loss_sums(graphdef, weights, batch, n_tasks, None)[1]

    return InMesh(jax.jit(step, out_shardings=NamedSharding(mesh, PartitionSpec())), mesh)
