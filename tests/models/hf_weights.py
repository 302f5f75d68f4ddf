"""Hugging Face's models as oracles: tiny ones that bite, and the way from their weights to ours."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import Gemma2Config, GPTNeoXConfig, ModelConfig, make_model

# Nothing here may be a value at which a feature could hide: the query scale is not head_dim, the window is far
# shorter than the rows, the caps are near 1, heads are grouped, and the norm's epsilon and rope's base are unusual.
TINY = Gemma2Config(
    vocab_size=97,
    embed_dim=24,
    ffw_dim=40,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    query_pre_attn_scalar=20.0,
    sliding_window=8,
    attn_softcap=1.5,
    final_softcap=2.0,
    rope_theta=100.0,
    norm_eps=0.05,
)

# Half of each head is rotated, all by angles that are unlike those of the usual base.
TINY_GPT_NEOX = GPTNeoXConfig(
    vocab_size=97,
    embed_dim=36,
    ffw_dim=40,
    num_layers=3,
    num_heads=3,
    rotary_fraction=0.5,
    rope_theta=100.0,
    norm_eps=0.05,
)

# Our modules and Hugging Face's; a tensor called ``bias`` has that name in both.
TOP = {
    "gemma2": {"embedding": "model.embed_tokens", "final_norm": "model.norm"},
    "gpt_neox": {
        "embedding": "gpt_neox.embed_in",
        "unembedding": "lm_head",
        "final_norm": "gpt_neox.final_layer_norm",
    },
}
LAYER = {
    "gemma2": {
        "pre_attention_norm": "input_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.o": "self_attn.o_proj",
        "post_attention_norm": "post_attention_layernorm",
        "pre_ffw_norm": "pre_feedforward_layernorm",
        "ffw.gate": "mlp.gate_proj",
        "ffw.up": "mlp.up_proj",
        "ffw.down": "mlp.down_proj",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "gpt_neox": {
        "attention_norm": "input_layernorm",
        "attention.qkv": "attention.query_key_value",
        "attention.o": "attention.dense",
        "ffw_norm": "post_attention_layernorm",
        "ffw.up": "mlp.dense_h_to_4h",
        "ffw.down": "mlp.dense_4h_to_h",
    },
}
KINDS = ("local_layer", "global_layer")
GPT_NEOX_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


COMMON: dict[str, Any] = dict(
    max_position_embeddings=256,
    pad_token_id=None,  # its row of the embedding would get no gradient from the input
    bos_token_id=2,
    eos_token_id=None,
    attn_implementation="eager",
    dtype=torch.float32,
)


def hf_model(config: ModelConfig, seed: int = 0) -> Any:
    """Random float32 model, eager attention; weights are about twice as large as usual, norms and biases random."""
    model = hf_architecture(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            spread = 0.5 if p.ndim == 1 else 0.3 if "embed" in name else 2.0 * p.shape[1] ** -0.5
            p.copy_(centre(name, config) + torch.randn(p.shape, generator=generator) * spread)
    return model


def centre(name: str, config: ModelConfig) -> float:
    """Usual value of one of Hugging Face's parameters; Gemma's norms add 1 to theirs."""
    return 1.0 if name.endswith("norm.weight") and isinstance(config, GPTNeoXConfig) else 0.0


def hf_architecture(config: ModelConfig) -> Any:
    """Their model of our configuration."""
    return (_hf_gemma2(config) if isinstance(config, Gemma2Config) else _hf_gpt_neox(config)).eval()


def _hf_gemma2(config: Gemma2Config) -> transformers.Gemma2ForCausalLM:
    return transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(
            vocab_size=config.vocab_size,
            hidden_size=config.embed_dim,
            intermediate_size=config.ffw_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            query_pre_attn_scalar=int(config.query_pre_attn_scalar),
            sliding_window=config.sliding_window,
            attn_logit_softcapping=config.attn_softcap,
            final_logit_softcapping=config.final_softcap,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            rms_norm_eps=config.norm_eps,
            **COMMON,
        )
    )


def _hf_gpt_neox(config: GPTNeoXConfig) -> transformers.GPTNeoXForCausalLM:
    scaling = (
        {"rope_type": "linear", "factor": config.rope_scale} if config.rope_scale != 1 else {"rope_type": "default"}
    )
    rotary = {"rope_theta": config.rope_theta, "partial_rotary_factor": config.rotary_fraction}
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.embed_dim,
            intermediate_size=config.ffw_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            hidden_act=GPT_NEOX_ACTIVATIONS[config.activation],
            use_parallel_residual=config.parallel_residual,
            rope_parameters=scaling | rotary,
            layer_norm_eps=config.norm_eps,
            **COMMON,
        )
    )


def hf_names(name: str, config: ModelConfig) -> list[str]:
    """Hugging Face's tensors that make up our parameter: one for each block where it is stacked."""
    architecture = "gemma2" if isinstance(config, Gemma2Config) else "gpt_neox"
    if name in TOP[architecture]:
        return [TOP[architecture][name] + ".weight"]
    module, _, kind = name.removeprefix("blocks.").rpartition(".")
    tensor = "bias" if kind == "bias" else "weight"
    if module in TOP[architecture]:
        return [f"{TOP[architecture][module]}.{tensor}"]
    first, step = 0, 1
    if architecture == "gemma2":
        layer, _, module = module.partition(".")
        first, step = KINDS.index(layer), len(KINDS)
    prefix = TOP[architecture]["embedding"].split(".")[0]
    layers = range(first, config.num_layers, step)
    return [f"{prefix}.layers.{i}.{LAYER[architecture][module]}.{tensor}" for i in layers]


def from_hf(tensors: Mapping[str, NDArray], config: ModelConfig) -> dict[str, NDArray]:
    """Hugging Face's tensors (or their gradients) under our names, in our layout."""

    def ours(name: str, shape: tuple[int, ...]) -> NDArray:
        theirs = [tensors[n] for n in hf_names(name, config)]
        # Theirs are [out, in].
        return np.stack([w.T if name.endswith(".kernel") else w for w in theirs]).reshape(shape)

    abstract = nnx.state(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0))), nnx.Param)
    flat = ((".".join(map(str, path)), v.get_value().shape) for path, v in nnx.to_flat_state(abstract))
    return {name: ours(name, shape) for name, shape in flat}


def parameters(tree: nnx.State) -> dict[str, NDArray]:
    """Leaves of a state by dotted name."""
    return {".".join(map(str, path)): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(tree)}


def our_model(theirs: Any, config: ModelConfig) -> Any:
    """Our model with the same weights."""
    weights = from_hf({k: v.detach().numpy() for k, v in theirs.named_parameters()}, config)
    graphdef, state = nnx.split(make_model(config, nnx.Rngs(0)))

    def fill(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        return variable.replace(jnp.asarray(weights[".".join(map(str, path))], variable.get_value().dtype))

    return nnx.merge(graphdef, nnx.map_state(fill, state))
