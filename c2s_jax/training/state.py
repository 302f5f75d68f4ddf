"""Training state: a pytree born sharded on the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.models import Decoder, ModelConfig, lora, make_model
from c2s_jax.models.linear import check_products, set_products
from c2s_jax.parallel import parameter_shardings


class TrainState(NamedTuple):
    """What a step reads and writes.

    ``params`` are trained; ``ema`` is their running mean, or None; ``frozen`` are the weights under an adapter, or
    None.
    """

    step: jax.Array
    params: nnx.State
    opt_state: optax.OptState
    ema: nnx.State | None
    frozen: nnx.State | None = None

    @property
    def eval_weights(self) -> nnx.State:
        """All weights to evaluate with: the running mean where one is kept."""
        return all_weights(self.params if self.ema is None else self.ema, self.frozen)


def all_weights(params: nnx.State, frozen: nnx.State | None) -> nnx.State:
    """The weights of the whole model, trained and frozen."""
    return params if frozen is None else nnx.merge_state(params, frozen)


class StatePlan:
    """The training state of a run before it exists: its shapes, dtypes and places, and how to make it.

    Parameters
    ----------
    ema
        Keep a running mean of the trained parameters.
    adapter
        Train this adapter and freeze the rest.
    quantized
        How the frozen kernels are stored ("int8", "nf4"; see ``models.quantize``); None leaves them as they are.
    products
        How linear maps multiply, "float" or "int8" (``models.linear``).

    Attributes
    ----------
    graphdef
        The model's graph definition.
    abstract
        The state as ``jax.ShapeDtypeStruct`` with shardings.
    shardings
        The same tree of shardings alone.
    """

    def __init__(
        self,
        config: ModelConfig,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        *,
        ema: bool = False,
        adapter: lora.LoRAConfig | None = None,
        quantized: str | None = None,
        products: str = "float",
    ):
        check_products(products)
        if quantized and not adapter:
            raise ValueError(f"kernels in {quantized} cannot be trained; train an adapter (lora.rank)")
        self.config, self.adapter, self.quantized = config, adapter, quantized
        self._optimizer, self._mesh, self._ema, self._products = optimizer, mesh, ema, products
        self.graphdef = nnx.graphdef(nnx.eval_shape(lambda: self._model(jax.random.key(0))))
        shapes = jax.eval_shape(self._init, jax.random.key(0), None)
        self.shardings = state_shardings(shapes, mesh)
        self.abstract: TrainState = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, self.shardings
        )

    def create(self, seed: int, weights: nnx.State | None = None) -> TrainState:
        """Make the state on the mesh, from ``weights`` (already there; donated) or from random ones.

        Raises
        ------
        ValueError
            When ``weights`` are not the model's (an adapter's may be left out); names one that is on one side only.
        """
        if weights is not None:
            given, params = (dict(nnx.to_flat_state(s)).keys() for s in (weights, self.abstract.params))
            frozen = dict(nnx.to_flat_state(self.abstract.frozen or nnx.State({}))).keys()
            if odd := ((frozen or params) - given) | (given - params - frozen):
                name = ".".join(map(str, min(odd, key=str)))
                raise ValueError(f"the weights given are not those of the model: {name} is on one side only")
        with jax.set_mesh(self._mesh):
            # What is random in ``_init`` but given in ``weights`` is never computed: XLA drops it.
            init = jax.jit(self._init, out_shardings=self.shardings, donate_argnums=1)
            return init(jax.random.key(seed), weights)

    def _model(self, key: jax.Array) -> Decoder:
        model = make_model(self.config, nnx.Rngs(key))
        if self.adapter:
            lora.add(model, self.adapter, nnx.Rngs(jax.random.fold_in(key, 1)))
        if self.quantized:
            from c2s_jax.models.quantize import quantize  # its package is an extra

            quantize(model, self.quantized)
        set_products(model, self._products)
        return model

    def _init(self, key: jax.Array, weights: nnx.State | None) -> TrainState:
        model = self._model(key)
        if weights is not None:
            nnx.update(model, weights)
        params = nnx.state(model, nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam)))
        frozen = None
        if self.adapter:
            params, frozen = nnx.state(model, nnx.LoRAParam), params
        copy = jax.tree.map(jnp.copy, params) if self._ema else None
        return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer.init(params), copy, frozen)


def create_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, **options: Any
) -> tuple[nnx.GraphDef, TrainState, TrainState]:
    """Graph definition, new state and shardings of a ``StatePlan``; ``weights`` goes to its ``create``."""
    weights = options.pop("weights", None)
    plan = StatePlan(config, optimizer, mesh, **options)
    return plan.graphdef, plan.create(seed, weights), plan.shardings


def state_shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
    """Shardings of a state: moments lie as parameters of their shape do, counters and factored moments everywhere."""
    params = parameter_shardings(abstract.params, mesh)
    replicated = NamedSharding(mesh, PartitionSpec())

    def like(x: Any) -> Any:
        if not isinstance(x, nnx.State):
            return replicated
        return jax.tree.map(lambda m, p, s: s if m.shape == p.shape else replicated, x, abstract.params, params)

    opt_state = jax.tree.map(like, abstract.opt_state, is_leaf=lambda x: isinstance(x, nnx.State))
    return TrainState(
        replicated,  # type: ignore[arg-type]  # shardings stand where arrays do
        params,
        opt_state,
        None if abstract.ema is None else params,
        None if abstract.frozen is None else parameter_shardings(abstract.frozen, mesh),
    )
