"""Training state: a pytree born sharded on the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c2s_jax.models import Gemma2, Gemma2Config
from c2s_jax.parallel import parameter_shardings


class TrainState(NamedTuple):
    """What a step reads and writes. ``ema`` is the running mean of the parameters, or None."""

    step: jax.Array
    params: nnx.State
    opt_state: optax.OptState
    ema: nnx.State | None

    @property
    def eval_params(self) -> nnx.State:
        """Parameters to evaluate with: the running mean where one is kept."""
        return self.params if self.ema is None else self.ema


def create_state(
    config: Gemma2Config, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, *, ema: bool = False
) -> tuple[nnx.GraphDef, TrainState, TrainState]:
    """Initialise a model and its optimizer directly on the mesh.

    Returns
    -------
    The model's graph definition, the state, and the state's shardings (a tree of the same shape).
    """

    def init(key: jax.Array) -> TrainState:
        params = nnx.state(Gemma2(config, rngs=nnx.Rngs(key)), nnx.Param)
        copy = jax.tree.map(jnp.copy, params) if ema else None
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), copy)

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Gemma2(config, rngs=nnx.Rngs(0))))
    key = jax.random.key(seed)
    shardings = state_shardings(jax.eval_shape(init, key), mesh)
    return graphdef, jax.jit(init, out_shardings=shardings)(key), shardings


def state_shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
    """Shardings of a state: optimizer moments lie as their parameters do, counters are replicated."""
    params = parameter_shardings(abstract.params, mesh)
    replicated = NamedSharding(mesh, PartitionSpec())

    def like(x: Any) -> Any:
        return params if isinstance(x, nnx.State) else replicated

    opt_state = jax.tree.map(like, abstract.opt_state, is_leaf=lambda x: isinstance(x, nnx.State))
    return TrainState(
        replicated,  # type: ignore[arg-type]  # shardings stand where arrays do
        params,
        opt_state,
        None if abstract.ema is None else params,
    )
