"""Batched generation: one jitted program reads the prompts and decodes until every row has stopped."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from numpy.typing import ArrayLike, NDArray

from c2s_jax.data.by_length import by_length, padded
from c2s_jax.generation.cells_grammar import Grammar
from c2s_jax.generation.decoding import Choices, Settings, Vocabulary, program
from c2s_jax.generation.drafts import Followed, GeneDrafts
from c2s_jax.generation.sampling import Sampling
from c2s_jax.generation.stop_strings import StopStrings
from c2s_jax.parallel import InMesh, from_devices, round_up, to_devices


class Samples(NamedTuple):
    """Generated tokens of N prompts, n samples of each: sample j of prompt i is row ``i · n + j``.

    Attributes
    ----------
    tokens
        int32 [N · n, max_new_tokens], the stop token included, then ``pad_id``.
    logprobs
        float32 [N · n, max_new_tokens], of the distribution sampled from; 0 after the stop token.
    lengths
        int32 [N · n], tokens generated, the stop token included.
    stopped
        bool [N · n], whether a stop token came before the limit.
    passes
        int32 [N · n], passes of the model that each row took part in, that over the prompt included.
    """

    tokens: NDArray
    logprobs: NDArray
    lengths: NDArray
    stopped: NDArray
    passes: NDArray

    def texts(self, decode: Callable[[list[int]], str], stop_strings: Sequence[str] = ()) -> list[str]:
        """Decoded answers, without the stop token, cut before the first of ``stop_strings``.

        A string may begin and end within tokens; text is looked at, so that no way of writing it is missed. Give the
        same to the sampler, so that rows end there.
        """
        ends = self.lengths - self.stopped
        texts = [decode(row[:end].tolist()) for row, end in zip(self.tokens, ends)]
        return [_cut(text, stop_strings) for text in texts] if stop_strings else texts


class Sampler:
    """Samples from a model on its devices.

    Prompts are padded to few lengths (``data.by_length``) and batches to ``batch_size``, so that one program a
    (prompt bucket, ``max_new_tokens``, ``Sampling``, samples a prompt) serves all calls; ``compiled`` counts them.

    Parameters
    ----------
    graphdef
        Of a model with ``prefill``, ``room``, ``extend`` and ``logits``.
    stop_ids
        Tokens that end an answer.
    pad_id
        Fills rows after their end.
    vocab_size
        Pieces of the tokenizer; ids beyond, rows that pad a checkpoint's table, are never drawn. None allows all.
    batch_size
        Rows decoded at once. The prompts of a batch are as many as fit with all their samples, raised to a multiple of
        the devices that share them.
    mesh
        Devices that hold the parameters; rows are spread over its replica and fsdp axes.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        *,
        stop_ids: Sequence[int],
        pad_id: int = 0,
        vocab_size: int | None = None,
        batch_size: int = 64,
        mesh: Mesh,
    ):
        self.batch_size = round_up(batch_size, mesh)
        self.graphdef, self.stop_ids, self.pad_id, self.mesh = graphdef, tuple(stop_ids), pad_id, mesh
        self._vocabulary = Vocabulary(vocab_size)
        self._jitted = jax.jit(program(graphdef), static_argnames="settings")
        self.program = InMesh(self._jitted, mesh)
        """``program(params, inputs, choices, settings=...)``, see ``decoding.program``; can be lowered."""

    @property
    def compiled(self) -> int:
        """Programs compiled so far."""
        return self._jitted._cache_size()  # type: ignore[attr-defined]

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        *,
        max_new_tokens: int,
        sampling: Sampling = Sampling(),
        seed: int = 0,
        samples_per_prompt: int = 1,
        prompt_ids: ArrayLike | None = None,
        grammar: Grammar | None = None,
        drafts: GeneDrafts | None = None,
        stop_strings: StopStrings | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate ``samples_per_prompt`` answers to each prompt.

        The randomness of an answer depends on (``seed``, its prompt's id, its number among the prompt's samples), not
        on the batch it is in. Samples of one prompt share the keys and values of the prompt.

        Parameters
        ----------
        params
            The model's parameters.
        prompts
            N arrays of token ids, none empty.
        max_new_tokens
            Most tokens an answer.
        prompt_ids
            N whole numbers below 2³² that stand for the prompts in their randomness; by default 0 … N - 1. Give them
            when the prompts are part of a longer list.
        grammar
            Allows gene lists only; log-probabilities are those of the distribution so restricted.
        drafts
            Guesses gene names, so that several tokens come from one pass of the model; the answers are the same. With
            a grammar, they must be drafts of that grammar.
        stop_strings
            Ends a row with the token that completes one of these texts.
        progress
            Called with the number of prompts finished in each batch.

        Returns
        -------
        Samples of ``N · samples_per_prompt`` rows, those of a prompt side by side, in the order of ``prompts``.
        """
        n, ids = samples_per_prompt, check_prompts(prompts, prompt_ids)
        if n < 1 or max_new_tokens < 1:
            raise ValueError(f"need samples_per_prompt >= 1 and max_new_tokens >= 1, not {n} and {max_new_tokens}")
        width = 0 if drafts is None else drafts.width
        settings = Settings(self.stop_ids, self.pad_id, max_new_tokens, sampling, n, drafts is None, width)
        at_once = self.prompts_at_once(n)
        self.check(grammar, drafts, len(prompts))
        out = empty_samples(len(prompts) * n, max_new_tokens, self.pad_id)
        for chosen, shape in by_length([len(p) for p in prompts], at_once):
            on_devices = to_devices(self.inputs(prompts, ids, chosen, shape, seed), self.mesh)
            choices = self.choices(grammar, drafts, np.resize(chosen, at_once))
            result = self.program(params, on_devices, choices, drafts, stop_strings, settings=settings)
            rows = (chosen[:, None] * n + np.arange(n)).reshape(-1)
            for column, values in zip(out, from_devices(result)):
                column[rows] = values[: len(rows)]
            if progress:
                progress(len(chosen))
        return out

    def prompts_at_once(self, samples_per_prompt: int) -> int:
        """Prompts that are answered together."""
        parts = round_up(1, self.mesh)
        return max(self.batch_size // samples_per_prompt // parts, 1) * parts

    def choices(self, grammar: Grammar | None, drafts: GeneDrafts | None, prompts: NDArray) -> Choices:
        """What may come next in answers to some of the prompts, by number."""
        if grammar is not None:
            return grammar.of_prompts(prompts)
        return self._vocabulary if drafts is None else Followed(drafts, self._vocabulary)

    def check(self, grammar: Grammar | None, drafts: GeneDrafts | None, prompts: int) -> None:
        """Refuse a grammar for other prompts or whose end does not stop an answer, and drafts of another grammar."""
        if grammar is None:
            return
        if grammar.limits.ndim and len(grammar.limits) != prompts:
            raise ValueError(f"the grammar has numbers of genes for {len(grammar.limits)} prompts; there are {prompts}")
        if (end := int(grammar.symbols[grammar.end])) not in self.stop_ids:
            raise ValueError(f"the grammar ends lists with token {end}, which is not one of stop_ids={self.stop_ids}")
        if drafts is not None and drafts.grammar.symbols is not grammar.symbols:
            raise ValueError("the drafts were built with another grammar")

    def inputs(
        self, prompts: Sequence[NDArray], ids: NDArray, chosen: NDArray, shape: tuple[int, int], seed: int
    ) -> tuple[Any, ...]:
        """Some of the prompts as the program takes them: tokens, lengths, which rows only fill up, ids, the seed."""
        tokens, lengths = padded([prompts[i] for i in chosen], shape, self.pad_id)
        filler = np.arange(shape[0]) >= len(chosen)
        return tokens, lengths, filler, np.resize(ids[chosen], shape[0]), np.uint32(seed)


def _cut(text: str, stops: Sequence[str]) -> str:
    found = [at for at in map(text.find, stops) if at >= 0]
    return text[: min(found)] if found else text


def check_prompts(prompts: Sequence[NDArray], prompt_ids: ArrayLike | None) -> NDArray[np.uint32]:
    """Ids of the prompts.

    Raises
    ------
    ValueError
        If a prompt is empty, or the ids are not one whole number below 2³² a prompt.
    """
    if empty := [i for i, p in enumerate(prompts) if not len(p)]:
        raise ValueError(f"prompt {empty[0]} is empty; start it with the beginning-of-sequence token")
    ids = np.arange(len(prompts)) if prompt_ids is None else np.asarray(prompt_ids)
    if ids.shape != (len(prompts),) or ids.dtype.kind not in "iu" or ((ids < 0) | (ids >= 2**32)).any():
        raise ValueError(f"prompt_ids must be {len(prompts)} whole numbers from 0 to 2³² - 1, one a prompt")
    return ids.astype(np.uint32)


def empty_samples(rows: int, max_new_tokens: int, pad_id: int) -> Samples:
    """Samples without a token."""
    shape = (rows, max_new_tokens)
    return Samples(
        np.full(shape, pad_id, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(rows, np.int32),
        np.zeros(rows, bool),
        np.zeros(rows, np.int32),
    )
