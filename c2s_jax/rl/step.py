"""The jitted programs of GRPO on the training side: log-probabilities of completions, and the update.

Letters, as of ``packing``: R rows of T tokens, of which K at most are of completions; V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from c2s_jax.models import Decoder
from c2s_jax.ops import constrain, token_logprobs
from c2s_jax.parallel import InMesh, cut_rows, micro_batches
from c2s_jax.rl.loss import token_loss
from c2s_jax.rl.options import GRPOOptions
from c2s_jax.training import TrainState
from c2s_jax.training.state import all_weights

Batch = dict[str, jax.Array]


def completion_logprobs(
    model: Decoder, batch: Batch, options: GRPOOptions, vocab_size: int
) -> tuple[Float[Array, "R K"], Float[Array, "R K"]]:
    """Log-probability of each completion token at the sampling temperature, and entropy of its distribution.

    Only the hidden states that predict completion tokens meet the vocabulary.

    Parameters
    ----------
    batch
        ``tokens``, ``positions``, ``segment_ids`` [R, T], ``at`` and ``completions`` [R, K], see ``Packing.batches``.
    vocab_size
        Pieces of the tokenizer: rows beyond, which pad a checkpoint's table, are never sampled.
    """
    hidden = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])
    hidden = jnp.take_along_axis(hidden, batch["at"][..., None], axis=1)
    hidden = constrain(hidden, "batch", "time", "embed")
    table = model.output_table[:vocab_size].astype(hidden.dtype)
    return token_logprobs(
        hidden, table, batch["completions"], softcap=model.config.final_softcap, temperature=options.temperature
    )


def make_logprobs(graphdef: nnx.GraphDef, mesh: Mesh, options: GRPOOptions, *, vocab_size: int, parts: int) -> InMesh:
    """Build ``(weights, batch) -> float32 [R, K]``; the batch is taken in ``parts`` at least, one after the other."""

    def run(weights: nnx.State, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, weights)
        micro = cut_rows(batch, micro_batches(mesh, batch["tokens"].shape, parts))
        found = jax.lax.map(lambda part: completion_logprobs(model, part, options, vocab_size)[0], micro)
        return jnp.swapaxes(found, 0, 1).reshape(batch["completions"].shape)

    return InMesh(jax.jit(run), mesh)


def make_update(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: TrainState,
    options: GRPOOptions,
    *,
    vocab_size: int,
    accumulate: int = 1,
) -> InMesh:
    """Build ``(state, batch) -> (state, metrics)``, one optimizer step; the state is donated, metrics stay on device.

    The batch holds what ``Packing.batches`` gives (``sampled`` are log-probabilities of the sampler) and, float32
    [R, K], ``weights`` and ``advantages``; where a phase has several steps ``old``, and with ``beta`` ``reference``. It
    is taken in ``accumulate`` parts at least, see ``micro_batches``, whose gradients add up.
    """

    def gradients(state: TrainState, batch: Batch) -> Any:
        def loss(params: nnx.State) -> tuple[jax.Array, dict[str, jax.Array]]:
            return loss_sums(graphdef, all_weights(params, state.frozen), batch, options, vocab_size)

        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return sums, grads

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        parts = micro_batches(mesh, batch["tokens"].shape, accumulate)
        if parts == 1:
            sums, grads = gradients(state, batch)
        else:
            micro = cut_rows(batch, parts)
            shapes = jax.eval_shape(gradients, state, jax.tree.map(lambda x: x[0], micro))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            sums, grads = jax.lax.scan(
                lambda carry, part: (jax.tree.map(jnp.add, carry, gradients(state, part)), None), zeros, micro
            )[0]
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        tokens = jnp.maximum(sums.pop("tokens"), 1.0)
        metrics = {"loss": sums.pop("loss"), **{name: value / tokens for name, value in sums.items()}}
        metrics["gradient_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state, state.ema, state.frozen), metrics

    return InMesh(jax.jit(update, donate_argnums=0, out_shardings=(shardings, None)), mesh)


def loss_sums(
    graphdef: nnx.GraphDef, weights: nnx.State, batch: Batch, options: GRPOOptions, vocab_size: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of a batch under a model's weights, and what is reported; see ``weighted_loss``."""
    return weighted_loss(*completion_logprobs(nnx.merge(graphdef, weights), batch, options, vocab_size), batch, options)


def weighted_loss(
    logprobs: Float[Array, "R K"], entropy: Float[Array, "R K"], batch: Batch, options: GRPOOptions
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of token losses, and sums over tokens of what is reported as means."""
    mask = batch["mask"]
    old = batch["old"] if "old" in batch else jax.lax.stop_gradient(logprobs)
    per_token = token_loss(logprobs, old, batch.get("reference"), batch["advantages"], mask, batch["owner"], options)
    # Where nothing counts there may be no number: a padding token can have any ratio.
    loss = jnp.sum(jnp.where(mask > 0, per_token.loss, 0.0) * batch["weights"])
    reported = {
        "kl": per_token.kl,
        "clipped_low": per_token.clipped_low,
        "clipped_high": per_token.clipped_high,
        "entropy": entropy,
        "logprob_gap": jnp.abs(logprobs - batch["sampled"]),
    }
    sums = {name: jnp.sum(jnp.where(mask > 0, jax.lax.stop_gradient(x), 0.0)) for name, x in reported.items()}
    return loss, sums | {"tokens": mask.sum(), "loss": jax.lax.stop_gradient(loss)}
