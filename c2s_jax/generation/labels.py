"""Closed sets of answers: the log-probability of every candidate after every prompt, and posteriors over them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

from c2s_jax.data.by_length import by_length, padded
from c2s_jax.generation.decoding import Vocabulary
from c2s_jax.generation.sampler import check_prompts
from c2s_jax.ops import token_logprobs
from c2s_jax.parallel import InMesh, from_devices, round_up, to_devices, tokens_at_once


class LabelScores(NamedTuple):
    """Scores of L candidate answers to N prompts.

    Attributes
    ----------
    logprobs
        float32 [N, L], log-probability of the whole answer, its end included.
    lengths
        int32 [L], tokens of each answer.
    """

    logprobs: NDArray
    lengths: NDArray

    def posterior(self, *, prior: NDArray | None = None, per_token: bool = False) -> NDArray:
        """Probability of each label given that the answer is one of them, float [N, L].

        Parameters
        ----------
        prior
            Log-probabilities [L] of the labels where the prompt says nothing about the cell, from ``prior`` of the
            scores of such prompts. Probabilities are divided by them before they are normalised (contextual
            calibration, Zhao et al. 2021, arXiv:2102.09690, with the diagonal matrix diag(p)⁻¹), so that labels that
            the model likes to write anyway do not win.
        per_token
            Use the mean instead of the sum over an answer's tokens (length normalisation, Brown et al. 2020,
            arXiv:2005.14165, section 2.4), so that long names do not lose by their length. No longer the model's own
            probabilities.
        """
        scores = self._scores(per_token)
        return softmax(scores if prior is None else scores - prior, axis=1)

    def prior(self, *, per_token: bool = False) -> NDArray:
        """Log of the mean posterior over these prompts, float [L].

        Of content-free prompts ("N/A" for the cell) it is contextual calibration's prior; of the cells to annotate
        themselves, batch calibration's (Zhou et al. 2023, arXiv:2309.17249), which assumes labels equally frequent.
        """
        return logsumexp(log_softmax(self._scores(per_token), axis=1), axis=0) - np.log(len(self.logprobs))

    def _scores(self, per_token: bool) -> NDArray:
        return self.logprobs / self.lengths if per_token else self.logprobs


class LabelScorer:
    """Scores candidate answers after prompts; each prompt is read once for all of them.

    Parameters
    ----------
    graphdef
        Of a model with ``prefill`` and ``extend``.
    pad_id
        Fills rows after their end.
    vocab_size
        Pieces of the tokenizer; ids beyond, rows that pad a checkpoint's table, have no probability. None for all.
    batch_size
        Prompts read at once; raised to a multiple of the devices that share them.
    rows
        Answers read at once, about: labels are taken in chunks so that prompts × labels are no more.
    mesh
        Devices that hold the parameters; rows are spread over its replica and fsdp axes.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        *,
        pad_id: int = 0,
        vocab_size: int | None = None,
        batch_size: int = 16,
        rows: int = 256,
        mesh: Mesh,
    ):
        self.batch_size = round_up(batch_size, mesh)
        self.pad_id, self.rows, self.mesh = pad_id, rows, mesh
        self._jitted = jax.jit(_program(graphdef, vocab_size))
        self._run = InMesh(self._jitted, mesh)

    @property
    def compiled(self) -> int:
        """Programs compiled so far: one a (prompt bucket, number and length of labels)."""
        return self._jitted._cache_size()  # type: ignore[attr-defined]

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        labels: Sequence[Sequence[int]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> LabelScores:
        """Log-probabilities of all labels after all prompts, equal to those of full forward passes.

        Parameters
        ----------
        params
            The model's parameters.
        prompts
            N arrays of token ids, none empty.
        labels
            L lists of token ids, each with the token that ends an answer; see ``answer_tokens``.
        progress
            Called with the number of prompts finished in each batch.
        """
        check_prompts(prompts, None)
        tokens, lengths = _label_arrays(labels, max(1, self.rows // self.batch_size), self.pad_id)
        on_all = jax.device_put((tokens, lengths), NamedSharding(self.mesh, PartitionSpec()))
        out = np.zeros((len(prompts), len(labels)), np.float32)
        cut: Any = dict(tokens=tokens_at_once(self.mesh), parts=round_up(1, self.mesh))
        for chosen, shape in by_length([len(p) for p in prompts], self.batch_size, **cut):
            inputs = padded([prompts[i] for i in chosen], shape, self.pad_id)
            found = self._run(params, *to_devices(inputs, self.mesh), *on_all)
            out[chosen] = from_devices(found)[: len(chosen), : len(labels)]
            if progress:
                progress(len(chosen))
        return LabelScores(out, np.array([len(x) for x in labels], np.int32))


def answer_tokens(tokenizer: Any, answers: Sequence[str]) -> list[list[int]]:
    """Tokens of whole answers as they stand after a prompt (" B cell."), with the end of the sequence."""
    return [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(answers)]


def _label_arrays(labels: Sequence[Sequence[int]], chunk: int, pad_id: int) -> tuple[NDArray, NDArray]:
    """Labels in chunks of at most ``chunk``: tokens [C, c, T] and lengths [C, c]."""
    if not labels or min(map(len, labels)) == 0:
        raise ValueError("labels must be given, each with at least one token")
    chunks = -(-len(labels) // chunk)
    size = -(-len(labels) // chunks)
    longest = -(-max(2, *map(len, labels)) // 4) * 4
    tokens, lengths = np.full((chunks * size, longest), pad_id, np.int32), np.ones(chunks * size, np.int32)
    for i, label in enumerate(labels):
        tokens[i, : len(label)], lengths[i] = label, len(label)
    return tokens.reshape(chunks, size, longest), lengths.reshape(chunks, size)


def _program(graphdef: nnx.GraphDef, vocab_size: int | None) -> Callable[..., Array]:
    def score(params: nnx.State, prompts: Array, prompt_lengths: Array, labels: Array, lengths: Array) -> Array:
        model = nnx.merge(graphdef, params)
        hidden, kept = model.prefill(prompts, prompt_lengths)
        first = jax.nn.log_softmax(Vocabulary(vocab_size).candidates((), model.logits(hidden[:, None])[:, 0]))
        n, steps = len(prompts), labels.shape[2] - 1
        at = prompt_lengths[:, None, None] + jnp.arange(steps)

        def chunk(xs: tuple[Array, Array]) -> Array:
            tokens, ends = xs
            shape = (n, *tokens[:, 1:].shape)
            fed, wanted = (jnp.broadcast_to(x, shape).reshape(-1, steps) for x in (tokens[:, :-1], tokens[:, 1:]))
            positions = jnp.broadcast_to(at, shape).reshape(-1, steps)
            states, _ = model.extend(fed, positions, kept)
            head: Any = dict(softcap=model.config.final_softcap, vocab_size=vocab_size)
            later, _ = token_logprobs(states, model.output_table, wanted, **head)
            later = jnp.where(jnp.arange(steps) < ends[:, None] - 1, later.reshape(shape), 0.0)
            return first[:, tokens[:, 0]] + later.sum(axis=-1)

        found = jax.lax.map(chunk, (labels, lengths))
        return jnp.moveaxis(found, 0, 1).reshape(n, -1)

    return score
