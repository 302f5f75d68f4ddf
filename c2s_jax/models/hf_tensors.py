"""Which tensor of a ``transformers`` checkpoint is which of our parameters, and how its axes lie."""

import math
import re
from functools import reduce
from typing import NamedTuple

from flax import nnx

from c2s_jax.models.architectures import architecture_name
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.linear import Linear

Shape = tuple[int, ...]


class Names(NamedTuple):
    """Hugging Face's name of each module of ours."""

    top: dict[str, str]
    layers: str
    layer: dict[str, str]
    kinds: tuple[str, ...]
    """Our layers of a block, in order; empty where a block is a layer."""
    tied: str | None
    """A tensor that repeats the embedding, where there is one."""
    ignored: re.Pattern[str]
    """Tensors of older files that hold no parameters."""


NAMES = {
    "gemma2": Names(
        {"embedding": "model.embed_tokens", "final_norm": "model.norm"},
        "model.layers",
        {
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
        ("local_layer", "global_layer"),
        "lm_head.weight",
        re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
    ),
    "gpt_neox": Names(
        {"embedding": "gpt_neox.embed_in", "unembedding": "embed_out", "final_norm": "gpt_neox.final_layer_norm"},
        "gpt_neox.layers",
        {
            "attention_norm": "input_layernorm",
            "attention.qkv": "attention.query_key_value",
            "attention.o": "attention.dense",
            "ffw_norm": "post_attention_layernorm",
            "ffw.up": "mlp.dense_h_to_4h",
            "ffw.down": "mlp.dense_4h_to_h",
        },
        (),
        None,
        re.compile(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"),
    ),
}


class HFTensor(NamedTuple):
    """One tensor of a checkpoint and its place in our parameters.

    Attributes
    ----------
    name
        Hugging Face's.
    path
        Of our parameter.
    block
        Row of our parameter, which is stacked over blocks; None where it is not.
    shape
        The tensor's, its dimensions split into our axes: [H, E, D] for a stored [H·E, D].
    rows
        Number of leading axes of ``shape`` that make the stored tensor's first dimension; the others, if any, make
        its second.
    order
        Axes of ``shape`` in the order of our parameter, e.g. (2, 0, 1) for [D, H, E].
    """

    name: str
    path: tuple[str, ...]
    block: int | None
    shape: tuple[int, ...]
    rows: int
    order: tuple[int, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The tensor's shape in the file."""
        return tuple(math.prod(axes) for axes in (self.shape[: self.rows], self.shape[self.rows :]) if axes)

    def stored_index(self, index: tuple[slice, ...]) -> tuple[tuple[slice, ...], tuple[int, ...], tuple[slice, ...]]:
        """How to read a part of ``shape``: slices of the stored tensor, their shape in our axes, slices of that."""
        stored, shape, rest = [], [], []
        for first, last in ((0, self.rows), (self.rows, len(self.shape))):
            if first == last:
                continue
            inner = self.shape[first + 1 : last]
            start, stop, _ = index[first].indices(self.shape[first])
            stored.append(slice(start * math.prod(inner), stop * math.prod(inner)))
            shape += [stop - start, *inner]
            rest += [slice(None), *index[first + 1 : last]]
        return tuple(stored), tuple(shape), tuple(rest)


def hf_tensors(model: Decoder) -> list[HFTensor]:
    """Every tensor of the checkpoint of ``model``, which may be abstract (``nnx.eval_shape``)."""
    names = NAMES[architecture_name(model.config)]
    out = []
    for keys, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        path = tuple(map(str, keys))
        shape = tuple(variable.get_value().shape)
        if path[0] != "blocks":
            out.append(HFTensor(_name(names.top, path), path, None, *_axes(model, path, shape)))
            continue
        kind, module = (path[1], path[2:]) if names.kinds else ("", path[1:])
        layers = range((names.kinds or ("",)).index(kind), model.config.num_layers, len(names.kinds) or 1)
        for block, layer in enumerate(layers):
            name = f"{names.layers}.{layer}.{_name(names.layer, module)}"
            out.append(HFTensor(name, path, block, *_axes(model, path, shape[1:])))
    return out


def _name(modules: dict[str, str], path: tuple[str, ...]) -> str:
    """Hugging Face's name of a parameter: its module's, and weight or bias."""
    whole = ".".join(path)
    if whole in modules:  # a table is a parameter of the model itself
        return f"{modules[whole]}.weight"
    module, leaf = ".".join(path[:-1]), path[-1]
    return f"{modules[module]}.{'bias' if leaf == 'bias' else 'weight'}"


def _axes(
    model: Decoder, path: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Shape, rows and order (see ``HFTensor``) of the tensor of one block that fills ``shape`` of ours."""
    module = reduce(getattr, path[:-1], model)
    if isinstance(module, Linear) and path[-1] == "kernel":
        n_in, n_out = len(module.in_axes), len(module.out_axes)
        order = (*range(n_out, n_out + n_in), *range(n_out))
        return (*shape[n_in:], *shape[:n_in]), n_out, order
    rows = len(shape) if path[-1] == "bias" else 1
    return shape, rows, tuple(range(len(shape)))
