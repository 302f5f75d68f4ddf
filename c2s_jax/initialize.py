"""From a configuration to a model to train or evaluate: architecture, attention backend, starting weights."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2s_jax import workdirs
from c2s_jax.config import differences, lora_config, model_config
from c2s_jax.models import ModelConfig, make_model, num_parameters
from c2s_jax.models.weights import CHOICES, load_weights
from c2s_jax.ops import choose_backend
from c2s_jax.parallel import parameter_shardings
from c2s_jax.text import Tokenizer
from c2s_jax.training import Checkpoints, StatePlan, TrainState, make_optimizer
from c2s_jax.training.state import all_weights


def plan_state(config: ConfigDict, tokenizer: Tokenizer, mesh: Mesh) -> StatePlan:
    """The run's state before it exists; says which model and which attention it has.

    Raises
    ------
    ValueError
        When the model's vocabulary does not hold the tokenizer's.
    """
    architecture = model_config(config, vocab_size=config.model.vocab_size or tokenizer.vocab_size)
    if tokenizer.vocab_size > architecture.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} pieces, more than model.vocab_size="
            f"{architecture.vocab_size:,}; use the model's own tokenizer, or set model.vocab_size"
        )
    if architecture.attention == "auto":
        choice = choose_backend(
            mesh.devices.flat[0],
            head_dim=architecture.head_dim,
            dtype=architecture.dtype,
            softcap=getattr(architecture, "attn_softcap", None),
        )
        architecture = dataclasses.replace(architecture, attention=choice.backend)
        workdirs.say(f"Attention: {choice.backend} ({choice.reason})")
    plan = StatePlan(
        architecture,
        make_optimizer(config),
        mesh,
        ema=config.ema_decay > 0,
        adapter=lora_config(config),
        quantized=config.lora.quantize or None,
        products=config.products,
    )
    trained = num_parameters(plan.abstract.params)
    if plan.abstract.frozen is None:
        size = f"{trained:,} parameters"
    else:
        kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(plan.abstract.frozen))
        size = f"{kept / 2**30:.1f} GiB of frozen parameters, adapted by {trained:,}"
    workdirs.say(f"Model: {config.model.architecture}, {size}, vocabulary {architecture.vocab_size:,}")
    return plan


def new_state(config: ConfigDict, plan: StatePlan, mesh: Mesh, tokenizer: Tokenizer | None = None) -> TrainState:
    """The state at step 0: weights of ``init_from``, or random ones."""
    return plan.create(config.seed, _pretrained(config, plan, mesh, tokenizer) if config.init_from else None)


def start_state(
    config: ConfigDict, plan: StatePlan, mesh: Mesh, checkpoints: Checkpoints, tokenizer: Tokenizer
) -> tuple[TrainState, dict[str, Any]]:
    """The state to go on from, of the newest checkpoint or a new one, and where the data is.

    The latter is ``row``, the next row of the stream, and ``in_steps``, seconds spent in steps so far.
    """
    if checkpoints.latest is None:
        return new_state(config, plan, mesh, tokenizer), {"row": 0, "in_steps": 0.0}
    state, position, saved = checkpoints.restore(state_to_restore(config, plan, mesh))
    workdirs.check_tokenizer(saved, tokenizer)
    workdirs.say(f"Restored step {checkpoints.latest:,} from {checkpoints.directory}")
    return state, position


def state_to_restore(config: ConfigDict, plan: StatePlan, mesh: Mesh) -> TrainState:
    """The abstract state for a checkpoint to fill; the weights under an adapter, which none holds, are read."""
    if plan.adapter is None:
        return plan.abstract
    return plan.abstract._replace(frozen=_pretrained(config, plan, mesh))


def reference_weights(
    config: ConfigDict, plan: StatePlan, mesh: Mesh, state: TrainState
) -> Callable[[TrainState], nnx.State]:
    """Build ``(state) -> weights``, those that a run starts from: read again, or, under an adapter, no second copy.

    Under an adapter they are the frozen ones of the state that is given: a step donates the state before it.
    """
    if state.frozen is None:
        weights = _pretrained(config, plan, mesh)
        return lambda state: weights
    silent = jax.tree.map(jnp.zeros_like, state.params)  # an adapter of zeros adds nothing
    return lambda state: all_weights(silent, state.frozen)


def _pretrained(config: ConfigDict, plan: StatePlan, mesh: Mesh, tokenizer: Tokenizer | None = None) -> nnx.State:
    workdirs.say(f"Reading weights from {config.init_from}")
    if workdirs.is_run(config.init_from):
        read_again = config.lora.rank > 0 or (config.objective == "grpo" and config.grpo.beta > 0)
        weights = _weights_of_run(config.init_from, plan.config, mesh, tokenizer, finished=read_again)
    else:
        weights = load_weights(config.init_from, plan.config, shardings=partial(parameter_shardings, mesh=mesh))
    if not plan.quantized:
        return weights
    from c2s_jax.models.quantize import quantize  # its package is an extra

    model = nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: make_model(plan.config, nnx.Rngs(0)))), weights)
    del weights  # each kernel goes as its codes come
    quantize(model, plan.quantized)
    return nnx.state(model, nnx.Param)


def _weights_of_run(
    workdir: str, architecture: ModelConfig, mesh: Mesh, tokenizer: Tokenizer | None, *, finished: bool
) -> nnx.State:
    """Weights of another run's newest checkpoint, to evaluate with (the running mean where one is kept).

    What is read at every start has to stay the same: it must be of a run that is ``finished``.
    """
    checkpoints = Checkpoints(workdir, every=1, writer=False)
    if checkpoints.latest is None:
        raise ValueError(f"init_from={workdir!r} holds no whole checkpoint yet")
    meta = checkpoints.meta()
    saved = ConfigDict(meta["config"])
    if finished and checkpoints.latest < saved.steps:
        raise ValueError(
            f"init_from={workdir!r} is at step {checkpoints.latest:,} of {saved.steps:,}; an adapter's base, or the "
            "reference of grpo.beta, must not change under a run: let that one end first, or start from a copy of its "
            "weights (python -m c2s_jax.convert to-hf)"
        )
    if saved.lora.rank:
        raise ValueError(
            f"init_from={workdir!r} holds an adapter alone (lora.rank={saved.lora.rank}): start from its base, or "
            "merge the two with c2s_jax.convert merge-lora"
        )
    if tokenizer:
        workdirs.check_tokenizer(meta, tokenizer)
    kept = (*CHOICES, "vocab_size")
    choices = {name: getattr(architecture, name) for name in kept if hasattr(architecture, name)}
    found = model_config(saved, **choices)
    if found != architecture:
        changed = differences(dataclasses.asdict(found), dataclasses.asdict(architecture))
        raise ValueError(
            f"init_from={workdir!r} holds another model than the configuration's:\n  " + "\n  ".join(changed)
        )
    params = nnx.state(nnx.eval_shape(lambda: make_model(architecture, nnx.Rngs(0))), nnx.Param)
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        params,
        parameter_shardings(params, mesh),
    )
    counter = jax.ShapeDtypeStruct((), "int32")
    ema = abstract if saved.ema_decay else None
    weights, _ = checkpoints.restore_weights(TrainState(counter, abstract, (), ema))  # type: ignore[arg-type]
    checkpoints.close()
    return weights
