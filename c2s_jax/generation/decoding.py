"""The program on the device: read prompts, then draw tokens until every row is done.

Letters: N prompts, B = N · n rows (n samples of each prompt, side by side), T tokens a pass, L most new tokens.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from c2s_jax.generation.sampling import NEVER, Sampling, draw, log_distribution
from c2s_jax.generation.stop_strings import StopStrings
from c2s_jax.models.cache import Cache


class Choices(Protocol):
    """Which tokens may come next. ``walk`` is what a row has to remember, a tree of arrays [B, ...]."""

    def start(self, rows: int) -> Any:
        """The walk of rows that have no token yet."""
        ...

    def table(self, output_table: Array) -> Array | None:
        """Rows of the output table that can be chosen, [U, D]; None for all."""
        ...

    def candidates(self, walk: Any, logits: Float[Array, "B U"]) -> Float[Array, "B C"]:
        """Logits of what may come next; ``NEVER`` where it may not."""
        ...

    def take(self, walk: Any, index: Int[Array, "B"], live: Bool[Array, "B"]) -> tuple[Int[Array, "B"], Any]:
        """Token of the candidate chosen, and the walk after it in rows that are ``live``."""
        ...


class Drafts(Protocol):
    """Guesses of what comes next, which cost nothing when wrong but the pass that reads them."""

    def propose(self, walk: Any) -> Int[Array, "B m"]:
        """Tokens that may follow; -1 where nothing is guessed."""
        ...


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """All tokens, or the first ``size``: rows beyond, which pad a checkpoint's table, are never drawn."""

    size: int | None = None

    def start(self, rows: int) -> tuple:
        """Nothing to remember."""
        return ()

    def table(self, output_table: Array) -> Array | None:
        """The whole table."""
        return None

    def candidates(self, walk: tuple, logits: Array) -> Array:
        """The logits."""
        return logits.at[:, self.size :].set(NEVER) if self.size else logits

    def take(self, walk: tuple, index: Array, live: Array) -> tuple[Array, tuple]:
        """The index is the token."""
        return index, walk


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program is compiled for.

    ``lockstep``: all rows began together and take one token a pass, so that they write one slot of the cache.
    ``width``: tokens drafted a pass. ``unstacked``: XLA for CPUs copies what a loop reads from a stack at every step;
    there the stack of blocks is taken apart. None leaves that to JAX's default backend.
    """

    stop_ids: tuple[int, ...]
    pad_id: int
    max_new_tokens: int
    sampling: Sampling
    samples: int = 1
    lockstep: bool = True
    width: int = 0
    unstacked: bool | None = None


class State(NamedTuple):
    """Of B rows: tokens drawn so far and their log-probabilities [B, L], and what it takes to go on.

    ``stopped`` rows drew a stop token; ``done`` ones draw no more, for whatever reason. ``text`` is where the automaton
    of stop strings is.
    """

    tokens: Int[Array, "B L"]
    logprobs: Float[Array, "B L"]
    lengths: Int[Array, "B"]
    stopped: Bool[Array, "B"]
    passes: Int[Array, "B"]
    done: Bool[Array, "B"]
    last: Int[Array, "B"]
    text: Int[Array, "B"]
    prompt_lengths: Int[Array, "B"]
    keys: Array
    step: Int[Array, ""]
    walk: Any
    prompts: Cache
    cache: Cache


class Decoding:
    """Draws tokens from a model; made inside of a jitted function."""

    def __init__(
        self,
        model: Any,
        choices: Choices,
        settings: Settings,
        drafts: Drafts | None = None,
        strings: StopStrings | None = None,
    ):
        unstacked = jax.default_backend() == "cpu" if settings.unstacked is None else settings.unstacked
        self._count = model.depth if unstacked else 1
        self.model, self.choices, self.settings, self.drafts, self.strings = model, choices, settings, drafts, strings
        self._parts = model.parts(self._count)
        self._table = choices.table(model.output_table)
        self._stops = jnp.asarray(settings.stop_ids, jnp.int32)

    def begin(self, prompts: Array, lengths: Array, filler: Array, ids: Array, seed: Array) -> State:
        """Read N prompts [N, S] and draw the first token of each of their n rows."""
        s, rows = self.settings, prompts.shape[0] * self.settings.samples
        hidden, kept = self.model.prefill(prompts, lengths, self._count)

        def each(x: Array) -> Array:
            return jnp.repeat(x, s.samples, axis=0)

        state = State(
            tokens=jnp.full((rows, s.max_new_tokens), s.pad_id, jnp.int32),
            logprobs=jnp.zeros((rows, s.max_new_tokens), jnp.float32),
            lengths=jnp.zeros((rows,), jnp.int32),
            stopped=jnp.zeros((rows,), bool),
            passes=jnp.zeros((rows,), jnp.int32),
            done=each(filler),
            last=jnp.zeros((rows,), jnp.int32),
            text=jnp.zeros((rows,), jnp.int32),
            prompt_lengths=each(lengths),
            keys=row_keys(seed, ids, s.samples),
            step=jnp.zeros((), jnp.int32),
            walk=self.choices.start(rows),
            prompts=kept,
            cache=self.model.room(kept, rows, s.max_new_tokens + s.width, 1 + s.width),
        )
        return self._draw(self._count_pass(state), each(self._logits(hidden)), ~state.done)

    def run(self, state: State, passes: int | None = None) -> State:
        """Go on until all rows are done, or for so many passes."""
        until = None if passes is None else state.step + passes

        def going(state: State) -> Array:
            alive = ~state.done.all()
            return alive if until is None else alive & (state.step < until)

        # What never changes stays outside of the loop's state.
        fixed: dict[str, Any] = {"prompts": state.prompts, "keys": state.keys, "prompt_lengths": state.prompt_lengths}
        small = _without(state, fixed)
        small = jax.lax.while_loop(going, lambda s: _without(self._pass(s._replace(**fixed)), fixed), small)
        return small._replace(**fixed)

    def _pass(self, state: State) -> State:
        s, at = self.settings, state.prompt_lengths + state.lengths - 1
        index = state.step if s.lockstep else state.lengths - 1
        tokens, positions = state.last[:, None], at[:, None] + jnp.arange(1 + s.width)
        draft = jnp.zeros((len(at), 0), jnp.int32)
        if self.drafts is not None:
            draft = self.drafts.propose(state.walk)
            tokens = jnp.concatenate([tokens, jnp.maximum(draft, 0)], axis=1)
        hidden, cache = self.model.extend(tokens, positions, state.prompts, state.cache, index, self._parts)
        state = self._count_pass(state._replace(cache=cache, step=state.step + 1))
        logits, live = self.model.logits(hidden, self._table), ~state.done
        for i in range(1 + s.width):
            state = self._draw(state, logits[:, i], live)
            if i < s.width:  # what was read after it is of use if it is what was drawn
                live = live & ~state.done & (state.last == draft[:, i])
        return state

    def _count_pass(self, state: State) -> State:
        return state._replace(passes=state.passes + ~state.done)

    def _logits(self, hidden: Array) -> Array:
        return self.model.logits(hidden[:, None], self._table)[:, 0]

    def _draw(self, state: State, logits: Array, live: Array) -> State:
        """One more token in the rows that are ``live``."""
        s = self.settings
        log_p = log_distribution(self.choices.candidates(state.walk, logits), s.sampling)
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.lengths)
        index, logprob = draw(log_p, keys, s.sampling)
        token, walk = self.choices.take(state.walk, index, live)
        rows, place = jnp.arange(len(live)), jnp.where(live, state.lengths, s.max_new_tokens)
        lengths = state.lengths + live
        stopped = state.stopped | (live & (token[:, None] == self._stops).any(axis=1))
        done, text = state.done | stopped | (lengths >= s.max_new_tokens), state.text
        if self.strings is not None:
            text = jnp.where(live, self.strings.step(text, token), text)
            done |= self.strings.ended(text)
        return state._replace(
            tokens=state.tokens.at[rows, place].set(token, mode="drop"),
            logprobs=state.logprobs.at[rows, place].set(logprob, mode="drop"),
            lengths=lengths,
            stopped=stopped,
            done=done,
            last=jnp.where(live, token, state.last),
            text=text,
            walk=walk,
        )


def _without(state: State, fields: Iterable[str]) -> State:
    none: dict[str, Any] = dict.fromkeys(fields, ())
    return state._replace(**none)


def row_keys(seed: Array, ids: Int[Array, "N"], samples: int) -> Array:
    """A key for each of N · n rows, from the seed, its prompt's id and its number among the prompt's samples."""

    def one(prompt: Array, sample: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), sample)

    numbers = jnp.arange(samples, dtype=jnp.uint32)
    return jax.vmap(one)(jnp.repeat(ids, samples), jnp.tile(numbers, ids.shape[0]))


def program(graphdef: nnx.GraphDef) -> Callable[..., tuple[Array, ...]]:
    """``generate`` of one model, to be jitted."""

    def generate(
        params: nnx.State,
        inputs: Any,
        choices: Choices,
        drafts: Drafts | None = None,
        strings: StopStrings | None = None,
        *,
        settings: Settings,
    ) -> tuple[Array, ...]:
        decoding = Decoding(nnx.merge(graphdef, params), choices, settings, drafts, strings)
        state = decoding.run(decoding.begin(*inputs))
        return state.tokens, state.logprobs, state.lengths, state.stopped, state.passes

    return generate
