"""Several adapters over one base in memory."""

from pathlib import Path
from typing import Any, ClassVar

import jax
from flax import nnx
from jax.sharding import Mesh

from c2s_jax.models import lora
from c2s_jax.models.peft import load_adapter
from c2s_jax.parallel import parameter_shardings


class Adapters:
    """What lets a model use one of several adapters, or none; the base's arrays are shared by all of them.

    Adapters with the same targets, rank and scale run in the same compiled programs; others get programs of their own,
    which are kept when another adapter is used and found again.
    """

    graphdef: nnx.GraphDef
    params: nnx.State
    mesh: Mesh

    PROGRAMS: ClassVar[tuple[str, ...]] = ()
    """Cached properties that depend on ``graphdef``."""
    RESULTS: ClassVar[tuple[str, ...]] = ()
    """Cached properties that depend on ``params``."""

    def __init__(self, module: Any, mesh: Mesh):
        self.graphdef, self.params = nnx.split(module)
        self.mesh = mesh
        self._base = self.graphdef, self.params
        self._adapters: dict[str, tuple[nnx.GraphDef, nnx.State]] = {}
        self._programs: dict[nnx.GraphDef, dict[str, Any]] = {}
        self._adapter: str | None = None

    @property
    def adapter(self) -> str | None:
        """Name of the adapter in use; None for the base alone."""
        return self._adapter

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters at hand."""
        return tuple(self._adapters)

    def add_adapter(self, name: str, source: str | Path) -> None:
        """Read an adapter that ``peft`` or ``models.peft.save_adapter`` wrote; ``use_adapter`` switches to it.

        Parameters
        ----------
        name
            What to call it.
        source
            Folder of the adapter, or the name of a repository on the Hugging Face hub (owner/name).

        Raises
        ------
        FileNotFoundError
            When there is no such folder or repository, or a file is missing from it.
        ValueError
            When the name is taken, or the adapter is not one for this model.
        """
        if name in self._adapters:
            raise ValueError(f"there is an adapter {name!r} already; give this one another name")
        module = nnx.merge(*self._base)
        load_adapter(module, source)
        for linear in lora.adapted(module):
            linear.lora_dropout = 0.0  # acts in training only; programs would differ for it
        graphdef, _, adapter = lora.split(module)
        self._adapters[name] = graphdef, jax.device_put(adapter, parameter_shardings(adapter, mesh=self.mesh))

    def use_adapter(self, name: str | None) -> None:
        """Answer with an adapter from now on; None for the base alone.

        Raises
        ------
        ValueError
            When there is no adapter of that name; lists those that are.
        """
        if name is not None and name not in self._adapters:
            names = ", ".join(map(repr, self._adapters)) or "none; add_adapter reads one"
            raise ValueError(f"there is no adapter {name!r}; at hand: {names}")
        base, params = self._base
        graphdef, adapter = (base, None) if name is None else self._adapters[name]
        if graphdef != self.graphdef:
            kept = {key: self.__dict__.pop(key) for key in self.PROGRAMS if key in self.__dict__}
            self._programs[self.graphdef] = kept
            self.__dict__.update(self._programs.get(graphdef, {}))
        for key in self.RESULTS:
            self.__dict__.pop(key, None)
        self.graphdef, self._adapter = graphdef, name
        self.params = params if adapter is None else nnx.merge_state(params, adapter)
