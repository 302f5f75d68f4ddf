"""Orbax checkpoints: parameters, optimizer state, loader position and run description, written in the background."""

import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from c2s_jax.training.state import TrainState

ITEMS = ("params", "opt_state", "data", "meta")


class Checkpoints:
    """The checkpoints of one run, in ``workdir/checkpoints``.

    A checkpoint becomes visible only when it is whole (Orbax renames it as its last act), so a killed run leaves
    either the previous one or the new one.
    """

    def __init__(self, workdir: str, *, every: int, keep: int = 2):
        self.directory = epath.Path(os.path.abspath(os.path.join(workdir, "checkpoints")))
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=every, max_to_keep=keep, enable_async_checkpointing=True, create=True
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)

    @property
    def latest(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: dict, meta: dict, *, force: bool = False) -> None:
        """Start saving if ``step`` is due (or forced); returns at once, the write goes on in the background."""
        if force and step == self.latest:
            return
        params = {"params": state.params, "ema": state.ema}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(_pure(params)),
                opt_state=ocp.args.StandardSave(_pure(state.opt_state)),
                data=ocp.args.JsonSave(data),
                meta=ocp.args.JsonSave(meta),
            ),
            force=force,
        )

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
        step_array = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), like.step.sharding)
        state = TrainState(step_array, params["params"], opt_state, params["ema"], like.frozen)
        return state, restored["data"], restored["meta"]

    def restore_weights(self, like: TrainState) -> tuple[nnx.State, dict]:
        """The newest checkpoint's weights to evaluate with, without the optimizer's state, and the run description."""
        weights = {"params": like.params, "ema": like.ema}
        restored = self._restore(self.latest, params=weights)
        params = _refill(weights, restored["params"])
        return like._replace(**params).eval_weights, restored["meta"]

    def _restore(self, step: int | None, **items: Any) -> Any:
        standard = {k: ocp.args.StandardRestore(jax.tree.map(_abstract, _pure(v))) for k, v in items.items()}
        json = {name: ocp.args.JsonRestore() for name in ("data", "meta")}
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**standard, **json))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"checkpoint {self.directory / str(step)} does not fit this configuration: {error}\n"
                "Use the config it was written with, or another --workdir."
            ) from error

    def close(self) -> None:
        """Wait for the writes under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _pure(tree: Any) -> dict[str, Any]:
    """Leaves by readable path: an on-disk layout that does not depend on Flax or Optax classes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _refill(like: Any, leaves: dict[str, Any]) -> Any:
    return jax.tree.map_with_path(lambda p, _: leaves[jax.tree_util.keystr(p, simple=True, separator=".")], like)
