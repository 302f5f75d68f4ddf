"""BERT and RoBERTa from folders of Hugging Face ``transformers``."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models.bert import Bert, BertConfig
from c2s_jax.models.hub import local_folder
from c2s_jax.models.safetensors_files import SafetensorsFolder
from c2s_jax.models.torch_files import read_torch
from c2s_jax.models.torch_names import Read, fill

PICKLE = "pytorch_model.bin"  # BioBERT was released as one; only tensors are read from it

NAMES = {
    "embedding": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "layers.q": "encoder.layer.{i}.attention.self.query",
    "layers.k": "encoder.layer.{i}.attention.self.key",
    "layers.v": "encoder.layer.{i}.attention.self.value",
    "layers.o": "encoder.layer.{i}.attention.output.dense",
    "layers.attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.up": "encoder.layer.{i}.intermediate.dense",
    "layers.down": "encoder.layer.{i}.output.dense",
    "layers.ffw_norm": "encoder.layer.{i}.output.LayerNorm",
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "embed_dim",
    "intermediate_size": "ffw_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "max_position_embeddings": "num_positions",
    "type_vocab_size": "num_token_types",
    "layer_norm_eps": "norm_eps",
}
# What transformers' classes take where a key is absent.
DEFAULTS = {"max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}
FIXED = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "quantization_config": (None,),
}


def bert_from_hf(source: str | Path, *, dtype: str = "float32") -> Bert:
    """Read an encoder of ``transformers``: its embeddings and layers; pooler and heads are left.

    Parameters
    ----------
    source
        Folder with ``config.json`` and safetensors files or, without them, ``pytorch_model.bin`` (``torch_files``); or
        the name of a repository on the hub (owner/name).
    dtype
        Of parameters and activations.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or repository, or files are missing from it.
    ValueError
        When it holds another architecture, or files, configuration and weights do not fit together; names the file and
        the key or tensor.
    """
    folder = encoder_folder(source)
    config = read_config(folder, dtype=dtype)
    names, read_full = _tensors(folder)
    stored = {_plain(name): name for name in names}
    _refuse_more_layers(stored, config, folder)

    def read(name: str) -> NDArray:
        return read_full(stored[name])

    return fill(nnx.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0))), read, NAMES, where=str(folder))


def encoder_folder(source: str | Path) -> Path:
    """``source`` if it is a folder, else what is wanted of the hub's repository of that name, downloaded."""
    folder = local_folder(source)
    if Path(source).is_dir() or any(folder.glob("*.safetensors")):
        return folder
    return local_folder(source, also=(PICKLE,))


def _tensors(folder: Path) -> tuple[Iterable[str], Read]:
    """Names of the tensors in a folder, and what reads one."""
    if (folder / PICKLE).is_file() and not any(folder.glob("*.safetensors*")):
        tensors = read_torch(folder / PICKLE)
        return tensors, tensors.__getitem__
    files = SafetensorsFolder(folder)

    def read(name: str) -> NDArray:
        files.dtype(name)  # refuses what is no float
        return files.read(name)

    return files.tensors, read


def read_config(folder: Path, *, dtype: str = "float32") -> BertConfig:
    """The configuration in a folder's ``config.json``."""
    path = folder / "config.json"
    try:
        hf = json.loads(path.read_bytes())
        return _config(hf, dtype)
    except FileNotFoundError:
        raise FileNotFoundError(f"no config.json in {folder}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _config(hf: Mapping[str, Any], dtype: str) -> BertConfig:
    kind = hf.get("model_type", "bert")  # the first BERTs, BioBERT's among them, have none
    if kind not in ("bert", "roberta"):
        raise ValueError(f"model_type={kind!r} is not supported, only bert and roberta")
    for key, allowed in FIXED.items():
        if hf.get(key) not in allowed:
            raise ValueError(f"{key}={hf[key]!r} is not supported, only {allowed[0]!r}")
    activation = hf.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"hidden_act={activation!r} is not supported, only {', '.join(ACTIVATIONS)}")
    values = {**DEFAULTS, **hf}
    if missing := [key for key in SIZES if key not in values]:
        raise ValueError(f"{', '.join(missing)} missing")
    fields = {ours: values[key] for key, ours in SIZES.items()}
    first = hf.get("pad_token_id", 1) + 1 if kind == "roberta" else 0
    return BertConfig(
        **fields, first_position=first, activation=ACTIVATIONS[activation], dtype=dtype, param_dtype=dtype
    )


def _plain(name: str) -> str:
    """A tensor's name without the model's prefix, in today's spelling (the first files say gamma and beta)."""
    name = re.sub(r"^(bert|roberta)\.", "", name)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _refuse_more_layers(stored: Mapping[str, str], config: BertConfig, folder: Path) -> None:
    for name, full in stored.items():
        layer = re.match(r"encoder\.layer\.(\d+)\.", name)
        if layer and int(layer[1]) >= config.num_layers:
            raise ValueError(f"{folder} holds {full}; by its config.json there are {config.num_layers} layers")
