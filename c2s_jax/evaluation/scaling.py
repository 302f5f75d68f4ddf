"""Held-out loss of each task on a fixed number of its samples: what scaling laws are read from."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.data import MixtureTask
from c2s_jax.data.by_length import by_length, padded
from c2s_jax.data.contexts import MissingData
from c2s_jax.evaluation.context import Context, progress
from c2s_jax.evaluation.examples import Examples
from c2s_jax.metrics import bootstrap
from c2s_jax.ops import token_logprobs
from c2s_jax.parallel import InMesh, from_devices, round_up, to_devices, tokens_at_once

SAMPLES = 500  # of a task, as in the paper


@dataclasses.dataclass(frozen=True)
class Loss:
    """Mean negative log-likelihood a token, in nats, with its bootstrap interval over samples.

    Attributes
    ----------
    nll
        Sum over all samples' tokens divided by their number.
    low, high
        95 % percentile interval when samples are drawn anew; None with a single sample.
    tokens
        How many were predicted.
    """

    nll: float
    low: float | None
    high: float | None
    tokens: int


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """Loss of one task.

    Attributes
    ----------
    response
        Of the response's tokens, the end token included, given the prompt.
    sequence
        Of all tokens but the first, which nothing predicts.
    n
        Samples.
    shortest, longest
        Tokens of a sample.
    """

    response: Loss
    sequence: Loss
    n: int
    shortest: int
    longest: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def task_losses(
    context: Context,
    split: str,
    tasks: Sequence[MixtureTask],
    *,
    samples: int = SAMPLES,
    seq_len: int,
    batch_size: int = 8,
    seed: int = 0,
    resamples: int = 1_000,
    missing: Literal["error", "skip"] = "skip",
) -> dict[str, TaskLoss]:
    """The model's loss on the first samples of each task of a split, by task.

    The samples depend on the corpus, the task's settings and the seed alone, not on the model, on other tasks or on
    the batch size, so losses of several models can be compared sample by sample. Nothing is augmented.

    Parameters
    ----------
    context
        Model, corpus and formatter.
    split
        Held-out split.
    tasks
        Which, and how their samples are made. Weights in the mixture and in the loss do not matter: each is measured
        on its own, every token alike.
    samples
        Of each task; fewer where the split has fewer units (cells, samples, clusters, questions, gene sets).
    seq_len
        Most tokens of a sample; longer ones lose genes, as in training.
    batch_size
        Samples at once.
    resamples
        Of the bootstrap over samples.
    missing
        What becomes of a task that the split has no data for: left out, or an error.

    Raises
    ------
    MissingData
        With ``missing="error"``; says what is missing.
    ValueError
        If a sample does not fit into ``seq_len``.
    """
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1")
    context = dataclasses.replace(context, seq_len=seq_len)
    measure = _row_losses(context)
    out: dict[str, TaskLoss] = {}
    for task in tasks:
        try:
            prompts, responses = Examples(context, split, task, samples, seed=seed).tokens
        except MissingData:
            if missing == "error":
                raise
            continue
        rows = [np.concatenate(sides) for sides in zip(prompts, responses)]
        starts = np.array([len(p) for p in prompts])
        sums = _measured(context, measure, rows, starts, batch_size, task.task)
        lengths = np.array([len(row) for row in rows])
        out[task.task] = TaskLoss(
            response=_loss(sums[:, 1], lengths - starts, resamples, seed),
            sequence=_loss(sums.sum(1), lengths - 1, resamples, seed),
            n=len(rows),
            shortest=int(lengths.min()),
            longest=int(lengths.max()),
        )
    return out


def _row_losses(context: Context) -> InMesh:
    """Build ``(params, tokens [B, T], starts [B], lengths [B]) -> [B, 2]``: loss of each row's prompt and response."""

    def rows(params: nnx.State, tokens: jax.Array, starts: jax.Array, lengths: jax.Array) -> jax.Array:
        model = nnx.merge(context.graphdef, params)
        place = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        segments = (place < lengths[:, None]).astype(jnp.int32)
        hidden = model.hidden(tokens, place, segments)
        table = model.output_table.astype(hidden.dtype)
        targets = jnp.roll(tokens, -1, axis=1)
        logprobs, _ = token_logprobs(hidden, table, targets, softcap=model.config.final_softcap)
        inside = place + 1 < lengths[:, None]
        response = place + 1 >= starts[:, None]
        masks = jnp.stack([inside & ~response, inside & response]).astype(jnp.float32)
        return -jnp.einsum("BT,XBT->BX", logprobs, masks)

    return InMesh(jax.jit(rows), context.mesh)


def _measured(
    context: Context,
    measure: InMesh,
    rows: list[NDArray],
    starts: NDArray,
    batch_size: int,
    what: str,
) -> NDArray[np.float64]:
    """Summed loss of each row's prompt and response [N, 2]."""
    mesh, out = context.mesh, np.empty((len(rows), 2))
    batch_size = round_up(batch_size, mesh)
    cut: Any = dict(tokens=tokens_at_once(mesh), parts=round_up(1, mesh), longest=context.seq_len)
    lengths = np.array([len(row) for row in rows])
    with progress(len(rows), f"loss of {what}", "sample") as bar:
        for chosen, shape in by_length(lengths, batch_size, **cut):
            tokens, _ = padded([rows[row] for row in chosen], shape, 0)
            filler = (0, shape[0] - len(chosen))
            bounds = [np.pad(x[chosen], filler).astype(np.int32) for x in (starts, lengths)]
            found = from_devices(measure(context.params, *to_devices((tokens, *bounds), mesh)))
            out[chosen] = found[: len(chosen)]
            bar.update(len(chosen))
    return out


def _loss(sums: NDArray[np.float64], tokens: NDArray[np.int64], resamples: int, seed: int) -> Loss:
    nll, n = float(sums.sum() / tokens.sum()), int(tokens.sum())
    if len(sums) < 2:
        return Loss(nll, None, None, n)
    interval = bootstrap(_ratio, sums, tokens.astype(np.float64), paired=True, resamples=resamples, seed=seed)
    return Loss(nll, interval.low, interval.high, n)


def _ratio(sums: jax.Array, tokens: jax.Array) -> jax.Array:
    return sums.sum() / tokens.sum()
