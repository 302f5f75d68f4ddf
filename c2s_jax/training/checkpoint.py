"""Orbax checkpoints: parameters, optimizer state, loader position and run description, written in the background."""

import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import nnx
from jax.experimental import multihost_utils

from c2s_jax.training import checksums
from c2s_jax.training.state import TrainState

ITEMS = ("params", "opt_state", "data", "meta", "metrics")
UNDER_WAY, DAMAGED = ".orbax-checkpoint-tmp", "damaged"


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    A checkpoint becomes visible only when it is whole (Orbax renames it as its last act), so a killed run leaves
    either the previous one or the new one. Each lists its files with their checksums. Opening the checkpoints compares
    the newest with its list; one that has been damaged since is told and passed over for the one before it.

    Parameters
    ----------
    every
        Steps from one checkpoint to the next.
    keep
        The newest so many are kept.
    keep_every
        Kept forever besides: steps that are multiples of it. 0: none.
    keep_best, best
        Kept besides: so many with the lowest metric of the name ``best``.
    writer
        False for a reader beside a run that may be under way; it removes nothing.

    Raises
    ------
    ValueError
        When every checkpoint is damaged.
    """

    def __init__(
        self,
        workdir: str,
        *,
        every: int,
        keep: int = 2,
        keep_every: int = 0,
        keep_best: int = 0,
        best: str = "validation/loss",
        writer: bool = True,
    ):
        self.directory = Path(os.path.abspath(os.path.join(workdir, "checkpoints")))
        self._every, self._keep_best, self._best = every, keep_best, best
        damaged = self._find_damaged()
        if damaged and writer:
            self._set_aside(damaged)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_preservation(keep, keep_every, keep_best, self._badness),
            best_fn=self._badness,  # without it, Orbax writes no metrics
            lightweight_initialize=not writer,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
            enable_async_checkpointing=True,
            cleanup_tmp_directories=writer,
            create=True,
        )
        self._saving: int | None = None
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)
        whole = [step for step in self._manager.all_steps() if step not in damaged]
        self._latest = max(whole, default=None)

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._latest

    def due(self, step: int) -> bool:
        """Whether ``step`` is one of those to save at."""
        return step % self._every == 0

    def save(
        self,
        step: int,
        state: TrainState,
        data: dict,
        meta: dict,
        *,
        metrics: Mapping[str, float] | None = None,
        force: bool = False,
    ) -> None:
        """Start saving if ``step`` is due (or forced); returns at once, the write goes on in the background.

        Parameters
        ----------
        data
            Where the loader is, as JSON: all that decides which batches come next.
        metrics
            Of this step, for ``keep_best``.

        Raises
        ------
        ValueError
            The metric that tells the best is not among them.
        """
        if step == self.latest or not (force or self.due(step)):
            return
        if self._keep_best and metrics and self._best not in metrics:
            raise ValueError(f"checkpoint.best={self._best!r} was not measured; there are {', '.join(metrics)}")
        params = {"params": state.params, "ema": state.ema}
        self._manager.wait_until_finished()
        self._saving = step
        items = {
            "params": ocp.args.StandardSave(_pure(params)),
            "opt_state": ocp.args.StandardSave(_pure(state.opt_state)),
            "data": ocp.args.JsonSave(data),
            "meta": ocp.args.JsonSave(meta),
        }
        scores = {name: value for name, value in (metrics or {}).items() if name == self._best}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=scores, force=True)
        self._latest = step

    def meta(self) -> dict[str, Any]:
        """Run description of the newest checkpoint."""
        return self._manager.restore(self.latest, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict, dict]:
        """Restore the newest checkpoint (or ``step``) with the shapes, dtypes and shardings of ``like``.

        Parameters
        ----------
        like
            A state, or an abstract one (``StatePlan.abstract``). Frozen weights are not part of a checkpoint; they are
            taken over from here.

        Returns
        -------
        state, loader position, run description.

        Raises
        ------
        ValueError
            When the checkpoint's parameters are not those of this configuration.
        """
        step = self.latest if step is None else step
        weights = {"params": like.params, "ema": like.ema}
        restored = self._restore(step, params=weights, opt_state=like.opt_state)
        params = _refill(weights, restored["params"])
        opt_state = _refill(like.opt_state, restored["opt_state"])
        step_array = jax.device_put(np.asarray(step, np.int32), like.step.sharding)
        state = TrainState(step_array, params["params"], opt_state, params["ema"], like.frozen)
        return state, restored["data"], restored["meta"]

    def restore_weights(self, like: TrainState) -> tuple[nnx.State, dict]:
        """The newest checkpoint's weights to evaluate with, without the optimizer's state, and the run description."""
        weights = {"params": like.params, "ema": like.ema}
        restored = self._restore(self.latest, params=weights)
        params = _refill(weights, restored["params"])
        return like._replace(**params).eval_weights, restored["meta"]

    def _restore(self, step: int | None, **items: Any) -> Any:
        self._manager.wait_until_finished()
        standard = {k: ocp.args.StandardRestore(jax.tree.map(_abstract, _pure(v))) for k, v in items.items()}
        json = {name: ocp.args.JsonRestore() for name in ("data", "meta")}
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**standard, **json))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"checkpoint {self.directory / str(step)} does not fit this configuration: {error}\n"
                "Use the config it was written with, or another --workdir."
            ) from error

    def wait(self) -> None:
        """Wait until what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _badness(self, metrics: dict[str, float]) -> float:
        """The metric that the best have least of; infinite where a step has none."""
        value = metrics.get(self._best, math.inf)
        return value if math.isfinite(value) else math.inf

    def _list_files(self) -> None:
        """List the files of the checkpoint being written, while it still has its temporary name (on process 0)."""
        partial = self.directory / f"{self._saving}{UNDER_WAY}"
        checksums.write(partial if partial.exists() else self.directory / str(self._saving))

    def _find_damaged(self) -> dict[int, str]:
        """Steps newer than the newest whole checkpoint, and what is wrong with each."""
        steps = [int(p.name) for p in self.directory.iterdir() if p.name.isdigit()] if self.directory.exists() else []
        damaged: dict[int, str] = {}
        for step in sorted(steps, reverse=True):
            problem = _agreed_damage(self.directory / str(step))
            if problem is None:
                break
            damaged[step] = problem
            logging.error("Checkpoint %s is DAMAGED and will not be used: %s", self.directory / str(step), problem)
        if damaged and len(damaged) == len(steps):
            listed = "".join(f"\n  step {step:,}: {problem}" for step, problem in damaged.items())
            raise ValueError(
                f"no checkpoint of {self.directory} is whole:{listed}\nRestore one of them from a copy, or remove them "
                "all to train from the start."
            )
        return damaged

    def _set_aside(self, damaged: dict[int, str]) -> None:
        """Move damaged checkpoints out of the way of those to come."""
        place = self.directory / DAMAGED
        if not jax.process_index():
            place.mkdir(exist_ok=True)
            for step in damaged:
                shutil.rmtree(place / str(step), ignore_errors=True)
                (self.directory / str(step)).rename(place / str(step))
            logging.error("Damaged checkpoints were moved to %s; remove them when you have seen them.", place)
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")


def _agreed_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, the same on all processes, each of which reads a part of it."""
    problem = checksums.damage(folder, process=jax.process_index(), processes=jax.process_count())
    if jax.process_count() == 1:
        return problem
    text = np.frombuffer((problem or "").encode()[:200].ljust(200), np.uint8)
    texts = (bytes(t).decode(errors="replace").strip() for t in np.asarray(multihost_utils.process_allgather(text)))
    return next((t for t in texts if t), None)


def _preservation(keep: int, keep_every: int, keep_best: int, badness: Callable[[dict], float]) -> Any:
    """Which checkpoints stay."""
    policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep)]
    if keep_every:
        policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
    if keep_best:
        policies.append(ocp.checkpoint_managers.BestN(get_metric_fn=badness, reverse=True, n=keep_best))
    return ocp.checkpoint_managers.AnyPreservationPolicy(policies)


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _pure(tree: Any) -> dict[str, Any]:
    """Leaves by readable path: an on-disk layout that does not depend on Flax or Optax classes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _refill(like: Any, leaves: dict[str, Any]) -> Any:
    return jax.tree.map_with_path(lambda p, _: leaves[jax.tree_util.keystr(p, simple=True, separator=".")], like)
