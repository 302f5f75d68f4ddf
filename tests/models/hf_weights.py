"""Hugging Face Gemma-2 as an oracle: a tiny model that bites, and the way from its weights to ours."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import Gemma2, Gemma2Config

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

NORMS = {
    "input_layernorm": "pre_attention_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "pre_ffw_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def hf_model(config: Gemma2Config, seed: int = 0) -> transformers.Gemma2ForCausalLM:
    """Random float32 model, eager attention; weights are about twice as large as usual and norms are random."""
    model = transformers.Gemma2ForCausalLM(
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
            max_position_embeddings=256,
            pad_token_id=None,  # its row of the embedding would get no gradient from the input
            bos_token_id=2,
            eos_token_id=None,
            attn_implementation="eager",  # type: ignore[call-arg]
            dtype=torch.float32,
        )
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            spread = 0.5 if p.ndim == 1 else 0.3 if "embed" in name else 2.0 * p.shape[1] ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * spread)
    return model


def from_hf(tensors: Mapping[str, NDArray], config: Gemma2Config) -> dict[str, NDArray]:
    """Hugging Face's tensors (or their gradients) under our names, in our layout."""
    D, H, K, E = config.embed_dim, config.num_heads, config.num_kv_heads, config.head_dim
    layouts: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
        "attention.q": ("self_attn.q_proj", lambda w: w.reshape(H, E, D).transpose(2, 0, 1)),
        "attention.k": ("self_attn.k_proj", lambda w: w.reshape(K, E, D).transpose(2, 0, 1)),
        "attention.v": ("self_attn.v_proj", lambda w: w.reshape(K, E, D).transpose(2, 0, 1)),
        "attention.o": ("self_attn.o_proj", lambda w: w.reshape(D, H, E).transpose(1, 2, 0)),
        "ffw.gate": ("mlp.gate_proj", np.transpose),
        "ffw.up": ("mlp.up_proj", np.transpose),
        "ffw.down": ("mlp.down_proj", np.transpose),
        **{f"{ours}.scale": (theirs, np.asarray) for theirs, ours in NORMS.items()},
    }
    out = {
        "embedding": tensors["model.embed_tokens.weight"],
        "final_norm.scale": tensors["model.norm.weight"],
    }
    for kind, first in (("local_layer", 0), ("global_layer", 1)):
        for ours, (theirs, layout) in layouts.items():
            stack = [layout(tensors[f"model.layers.{i}.{theirs}.weight"]) for i in range(first, config.num_layers, 2)]
            out[f"pairs.{kind}.{ours}"] = np.stack(stack)
    return out


def parameters(tree: nnx.State) -> dict[str, NDArray]:
    """Leaves of a state by dotted name."""
    return {".".join(map(str, path)): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(tree)}


def our_model(theirs: transformers.Gemma2ForCausalLM, config: Gemma2Config) -> Gemma2:
    """Our model with the same weights; every parameter must be given, in its very shape."""
    weights = from_hf({k: v.detach().numpy() for k, v in theirs.named_parameters()}, config)
    model = Gemma2(config, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    assert weights.keys() == parameters(state).keys()

    def fill(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        value = weights[".".join(map(str, path))]
        assert value.shape == variable.get_value().shape, path
        return variable.replace(jnp.asarray(value))

    nnx.update(model, nnx.map_state(fill, state))
    return model
