"""Dynamic batching: rows that have finished make place for the next prompts; short answers wait for no long one."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int
from numpy.typing import ArrayLike, NDArray

from c2s_jax.data.by_length import bucket
from c2s_jax.generation.cells_grammar import Grammar
from c2s_jax.generation.decoding import Choices, Decoding, Drafts, Settings, State
from c2s_jax.generation.drafts import GeneDrafts
from c2s_jax.generation.sampler import Sampler, Samples, check_prompts, empty_samples
from c2s_jax.generation.sampling import Sampling
from c2s_jax.generation.stop_strings import StopStrings
from c2s_jax.models.cache import Cache, KeyValues, LayerCache
from c2s_jax.parallel import InMesh, from_devices, round_up, to_devices


class SlotSampler:
    """Answers a queue of prompts with a fixed number of rows.

    Two programs take turns: one decodes all rows for some passes, the other reads the next prompts into rows that are
    free. Every prompt is padded to the bucket of the longest. Answers are those of the sampler, which differ in no
    token: randomness hangs on the prompt's id.

    Parameters
    ----------
    sampler
        Its model, stop tokens, mesh and ``batch_size``, the number of rows.
    passes
        Between two looks at which rows are done.
    admit
        Prompts read at once; as many rows have to be free, unless fewer prompts are left.
    """

    def __init__(self, sampler: Sampler, *, passes: int = 16, admit: int = 4):
        self._sampler, self._passes = sampler, passes
        self._admitted = min(round_up(admit, sampler.mesh), sampler.batch_size)
        begin, run = _programs(sampler.graphdef)
        static: Any = dict(static_argnames=("settings", "passes"))
        self._begin = InMesh(jax.jit(begin, static_argnames="settings"), sampler.mesh)
        self._place = InMesh(jax.jit(_place, donate_argnums=0), sampler.mesh)
        self._run = InMesh(jax.jit(run, donate_argnums=1, **static), sampler.mesh)

    def __call__(
        self,
        params: nnx.State,
        prompts: Sequence[NDArray],
        *,
        max_new_tokens: int,
        sampling: Sampling = Sampling(),
        seed: int = 0,
        prompt_ids: ArrayLike | None = None,
        grammar: Grammar | None = None,
        drafts: GeneDrafts | None = None,
        stop_strings: StopStrings | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """One answer a prompt; see ``Sampler.__call__``."""
        s, ids = self._sampler, check_prompts(prompts, prompt_ids)
        s.check(grammar, drafts, len(prompts))
        width = 0 if drafts is None else drafts.width
        settings = Settings(s.stop_ids, s.pad_id, max_new_tokens, sampling, lockstep=False, width=width)
        shape = (self._admitted, bucket(max(map(len, prompts), default=1)))

        def begin(numbers: NDArray) -> State:
            choices = s.choices(grammar, drafts, np.resize(numbers, shape[0]))
            inputs = to_devices(s.inputs(prompts, ids, numbers, shape, seed), s.mesh)
            return self._begin(params, inputs, choices, stop_strings, settings=settings)

        out, queue = empty_samples(len(prompts), max_new_tokens, s.pad_id), list(range(len(prompts)))
        owner = np.full(s.batch_size, -1)  # the prompt in each row
        state: State | None = None
        while queue or (owner >= 0).any():
            while queue and (owner < 0).sum() >= min(self._admitted, len(queue)):
                now, queue = queue[: self._admitted], queue[self._admitted :]
                rows = np.flatnonzero(owner < 0)[: len(now)]
                owner[rows] = now
                slots = np.full(self._admitted, s.batch_size)  # beyond the rows: nowhere
                slots[: len(rows)] = rows
                fresh = begin(np.array(now))
                state = self._place(_vacant(fresh, s.batch_size) if state is None else state, fresh, slots)
            assert state is not None
            choices = s.choices(grammar, drafts, np.zeros(1, np.int64))
            state = self._run(params, state, choices, drafts, stop_strings, settings=settings, passes=self._passes)
            finished = np.flatnonzero(from_devices(state.done) & (owner >= 0))
            _collect(out, state, finished, owner[finished])
            owner[finished] = -1
            if progress and len(finished):
                progress(len(finished))
        return out


def _collect(out: Samples, state: State, rows: NDArray, prompts: NDArray) -> None:
    """Copy answers to the host."""
    if len(rows):
        answers = from_devices((state.tokens, state.logprobs, state.lengths, state.stopped, state.passes))
        for column, values in zip(out, answers):
            column[prompts] = values[rows]


def _programs(graphdef: nnx.GraphDef) -> tuple[Callable[..., State], Callable[..., State]]:
    def begin(
        params: nnx.State, inputs: Any, choices: Choices, strings: StopStrings | None, *, settings: Settings
    ) -> State:
        return Decoding(nnx.merge(graphdef, params), choices, settings, strings=strings).begin(*inputs)

    def run(
        params: nnx.State,
        state: State,
        choices: Choices,
        drafts: Drafts | None,
        strings: StopStrings | None,
        *,
        settings: Settings,
        passes: int,
    ) -> State:
        return Decoding(nnx.merge(graphdef, params), choices, settings, drafts, strings).run(state, passes)

    return begin, run


def _vacant(like: State, rows: int) -> State:
    """A state of so many rows, all done; what is in them does not matter."""

    def room(axis: int) -> Callable[[Array], Array]:
        return lambda x: x[(slice(None),) * axis + (jnp.zeros(rows, jnp.int32),)]

    def caches(layers: Cache) -> Cache:
        return tuple(LayerCache(jax.tree.map(room(1), x.kv), room(0)(x.positions)) for x in layers)

    small = {name: jax.tree.map(room(0), getattr(like, name)) for name in _ROWS}
    small["done"] = jnp.ones((rows,), bool)
    return State(**small, step=jnp.zeros((), jnp.int32), prompts=caches(like.prompts), cache=caches(like.cache))


def _place(state: State, fresh: State, slots: Int[Array, "A"]) -> State:
    """The state with new rows in these slots; a slot beyond the rows is none."""

    def put(old: Array, new: Array) -> Array:
        return old.at[slots].set(new, mode="drop")

    def prompts(old: LayerCache, new: LayerCache) -> LayerCache:
        pairs = tuple(
            KeyValues(*(a.at[:, slots].set(b, mode="drop") for a, b in zip(x, y))) for x, y in zip(old.kv, new.kv)
        )
        return LayerCache(pairs, put(old.positions, new.positions))

    small = {name: jax.tree.map(put, getattr(state, name), getattr(fresh, name)) for name in _ROWS}
    return State(
        **small,
        step=state.step,
        prompts=tuple(map(prompts, state.prompts, fresh.prompts)),
        # New rows have no tokens in the cache: an empty position hides what is there.
        cache=tuple(x._replace(positions=x.positions.at[slots].set(-1, mode="drop")) for x in state.cache),
    )


_ROWS = (
    "tokens",
    "logprobs",
    "lengths",
    "stopped",
    "passes",
    "done",
    "last",
    "text",
    "prompt_lengths",
    "keys",
    "walk",
)
