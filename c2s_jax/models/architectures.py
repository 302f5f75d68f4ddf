"""The model families, by name."""

import jax
from flax import nnx

from c2s_jax.models.decoder import Decoder
from c2s_jax.models.gemma2 import Gemma2, Gemma2Config
from c2s_jax.models.gpt_neox import GPTNeoX, GPTNeoXConfig

ModelConfig = Gemma2Config | GPTNeoXConfig

ARCHITECTURES: dict[str, tuple[type[Decoder], type[ModelConfig]]] = {
    "gemma2": (Gemma2, Gemma2Config),
    "gpt_neox": (GPTNeoX, GPTNeoXConfig),
}


def architecture_name(config: ModelConfig) -> str:
    """The name of the family that ``config`` belongs to."""
    (name,) = (name for name, (_, kind) in ARCHITECTURES.items() if isinstance(config, kind))
    return name


def make_model(config: ModelConfig, rngs: nnx.Rngs) -> Decoder:
    """A randomly initialised model of the family that ``config`` belongs to."""
    return ARCHITECTURES[architecture_name(config)][0](config, rngs=rngs)  # type: ignore[call-arg]


def named_parameters(model: Decoder) -> dict[tuple[str, ...], jax.Array]:
    """Every parameter by its path, to be written to files.

    Raises
    ------
    ValueError
        When the model carries an adapter, or is quantized.
    """
    if jax.tree.leaves(nnx.state(model, nnx.LoRAParam)):
        raise ValueError("the model carries an adapter: merge it (models.lora.merge), or export the adapter alone")
    params = {tuple(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    if quantized := [path for path in params if path[-1] == "kernel_scale"]:
        raise ValueError(f"{'.'.join(quantized[0][:-1])} is quantized: export the weights that it was made from")
    return params
