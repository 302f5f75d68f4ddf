"""scGPT from its released folders: ``args.json``, ``vocab.json`` and ``best_model.pt``."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models.scgpt import ScGPT, ScGPTConfig
from c2s_jax.models.torch_files import read_torch
from c2s_jax.models.torch_names import fill
from c2s_jax.text.tokenizer import read_json

ARGS, VOCAB, WEIGHTS = "args.json", "vocab.json", "best_model.pt"
SPECIAL = ("<pad>", "<cls>", "<eoc>")
SIZES = {"embsize": "embed_dim", "d_hid": "ffw_dim", "nlayers": "num_layers", "nheads": "num_heads"}
# What we do; an absent key means it.
FIXED: dict[str, tuple[Any, ...]] = {
    "input_emb_style": ("continuous",),
    "input_style": ("binned",),
    "norm_scheme": ("post",),
    "pre_norm": (False,),
    "use_batch_labels": (False,),
    "domain_spec_batchnorm": (False,),
    "DSBN": (False,),
    "n_bins": (51,),
    "pad_value": (-2,),
}
NAMES = {
    "embedding": "encoder.embedding",
    "embedding_norm": "encoder.enc_norm",
    "values.up": "value_encoder.linear1",
    "values.down": "value_encoder.linear2",
    "values.norm": "value_encoder.norm",
    "layers.q": "q.{i}",
    "layers.k": "k.{i}",
    "layers.v": "v.{i}",
    "layers.o": "transformer_encoder.layers.{i}.self_attn.out_proj",
    "layers.attention_norm": "transformer_encoder.layers.{i}.norm1",
    "layers.up": "transformer_encoder.layers.{i}.linear1",
    "layers.down": "transformer_encoder.layers.{i}.linear2",
    "layers.ffw_norm": "transformer_encoder.layers.{i}.norm2",
}
# Keys of fast attention and of torch's own.
PROJECTIONS = ("Wqkv.weight", "in_proj_weight"), ("Wqkv.bias", "in_proj_bias")


def scgpt_from_folder(folder: str | Path, *, dtype: str = "float32") -> tuple[ScGPT, dict[str, int]]:
    """Read a released scGPT: its encoder, and the ids of its genes.

    Decoders for pretraining are left. The file of weights is a pickle; only tensors are read from it (``torch_files``).

    Parameters
    ----------
    folder
        With ``args.json``, ``vocab.json`` and ``best_model.pt``.
    dtype
        Of parameters and activations.

    Raises
    ------
    FileNotFoundError
        When one of the files is missing.
    ValueError
        When they do not fit together, or ask for something that is not supported; names the file and the key or tensor.
    """
    folder = Path(folder)
    if missing := [name for name in (ARGS, VOCAB, WEIGHTS) if not (folder / name).is_file()]:
        raise FileNotFoundError(f"no {', '.join(missing)} in {folder}: a released scGPT is three files")
    vocabulary = _vocabulary(folder / VOCAB)
    config = _config(folder / ARGS, len(vocabulary), dtype)
    tensors = _tensors(folder / WEIGHTS, config)
    model = nnx.eval_shape(lambda: ScGPT(config, rngs=nnx.Rngs(0)))
    return fill(model, tensors.__getitem__, NAMES, where=str(folder / WEIGHTS)), vocabulary


def _vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path)
    for token in SPECIAL:  # the reference appends those that are absent
        vocabulary.setdefault(token, len(vocabulary))
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"{path}: ids are not the numbers 0 to {len(vocabulary) - 1:,}, each once")
    return vocabulary


def _config(path: Path, vocab_size: int, dtype: str) -> ScGPTConfig:
    args = read_json(path)
    for key, allowed in FIXED.items():
        if key in args and args[key] not in allowed:
            raise ValueError(f"{path}: {key}={args[key]!r} is not supported, only {allowed[0]!r}")
    if missing := [key for key in SIZES if key not in args]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    sizes = {ours: args[key] for key, ours in SIZES.items()}
    return ScGPTConfig(vocab_size=vocab_size, dtype=dtype, param_dtype=dtype, **sizes)


def _tensors(path: Path, config: ScGPTConfig) -> dict[str, NDArray]:
    """Tensors by name, with queries, keys and values apart."""
    tensors = {name.removeprefix("module."): value for name, value in read_torch(path).items()}
    for name in tensors:
        layer = re.match(r"transformer_encoder\.layers\.(\d+)\.", name)
        if layer and int(layer[1]) >= config.num_layers:
            raise ValueError(f"{path} holds {name}; by {ARGS} there are {config.num_layers} layers")
    for i in range(config.num_layers):
        for names, leaf in zip(PROJECTIONS, ("weight", "bias")):
            full = [f"transformer_encoder.layers.{i}.self_attn.{name}" for name in names]
            found = [tensors[name] for name in full if name in tensors]
            if not found:
                raise ValueError(f"{path} lacks the tensor {full[0]} (or {full[1]})")
            if len(found[0]) != 3 * config.embed_dim:
                raise ValueError(f"tensor {full[0]} in {path} has {len(found[0])} rows, not {3 * config.embed_dim}")
            parts = np.split(found[0], 3)
            tensors |= {f"{part}.{i}.{leaf}": value for part, value in zip("qkv", parts)}
    return {name: value for name, value in tensors.items() if jnp.issubdtype(value.dtype, jnp.floating)}
