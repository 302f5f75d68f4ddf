"""From a configuration to a model to train or evaluate: architecture, attention backend, starting weights."""

import dataclasses
from functools import partial

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from c2s_jax import workdirs
from c2s_jax.config import lora_config, model_config
from c2s_jax.models import make_model, num_parameters
from c2s_jax.models.weights import load_weights
from c2s_jax.ops import choose_backend
from c2s_jax.parallel import parameter_shardings
from c2s_jax.text import Tokenizer
from c2s_jax.training import StatePlan, TrainState, make_optimizer


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
    )
    trained = num_parameters(plan.abstract.params)
    if plan.abstract.frozen is None:
        size = f"{trained:,} parameters"
    else:
        kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(plan.abstract.frozen))
        size = f"{kept / 2**30:.1f} GiB of frozen parameters, adapted by {trained:,}"
    workdirs.say(f"Model: {config.model.architecture}, {size}, vocabulary {architecture.vocab_size:,}")
    return plan


def new_state(config: ConfigDict, plan: StatePlan, mesh: Mesh) -> TrainState:
    """The state at step 0: weights of ``init_from``, or random ones."""
    return plan.create(config.seed, _pretrained(config, plan, mesh) if config.init_from else None)


def state_to_restore(config: ConfigDict, plan: StatePlan, mesh: Mesh) -> TrainState:
    """The abstract state for a checkpoint to fill; the weights under an adapter, which none holds, are read."""
    if plan.adapter is None:
        return plan.abstract
    return plan.abstract._replace(frozen=_pretrained(config, plan, mesh))


def _pretrained(config: ConfigDict, plan: StatePlan, mesh: Mesh) -> nnx.State:
    workdirs.say(f"Reading weights from {config.init_from}")
    weights = load_weights(config.init_from, plan.config, shardings=partial(parameter_shardings, mesh=mesh))
    if not plan.quantized:
        return weights
    from c2s_jax.models.quantize import quantize  # its package is an extra

    model = nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: make_model(plan.config, nnx.Rngs(0)))), weights)
    del weights  # each kernel goes as its codes come
    quantize(model, plan.quantized)
    return nnx.state(model, nnx.Param)
