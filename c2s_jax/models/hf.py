"""Checkpoints of Hugging Face ``transformers``: Gemma-2 and GPT-NeoX, from and to safetensors.

Values are not changed, only transposed and stacked, so a round trip is bit-exact.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.lax import bitcast_convert_type as bitcast
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from numpy.typing import NDArray

from c2s_jax.models.architectures import ModelConfig, architecture_name, make_model, named_parameters
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.folders import new_folder
from c2s_jax.models.hf_config import config_from_hf, config_to_hf
from c2s_jax.models.hf_tensors import NAMES, HFTensor, hf_tensors
from c2s_jax.models.hub import local_folder
from c2s_jax.models.safetensors_files import SafetensorsFolder, write_safetensors
from c2s_jax.text import copy_tokenizer, load_tokenizer

Shardings = Callable[[nnx.State], nnx.State]
"""From abstract parameters to the sharding of each, e.g. ``partial(parameter_shardings, mesh=mesh)``."""

Progress = Callable[[int, int], None]
"""Called with the bytes done since the last call and the bytes of all."""

COMPARED_ROWS = 4096


def from_hf(
    source: str | Path,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    shardings: Shardings | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Decoder:
    """Read a checkpoint of ``transformers``.

    Tensors are read one by one and put on the devices at once, where each is transposed into its place in the stack;
    a process reads only what its devices hold. Host memory beyond the model's own is that of about one tensor.

    Parameters
    ----------
    source
        Folder with ``config.json`` and safetensors files, or the name of a repository on the hub (owner/name).
    dtype
        Of activations, and of parameters unless ``param_dtype`` is given. By default that of the files: bfloat16 if
        all tensors are, else float32, which holds every value that they can.
    param_dtype
        Of parameters.
    shardings
        Where parameters go; by default to the first device.
    progress
        Told of the bytes read.
    changes
        Other fields of the configuration, e.g. ``remat``, ``attention``.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or repository, or files are missing from it.
    ValueError
        When the architecture is not supported, or files, configuration and weights do not fit together; names the
        file and the key or tensor.
    """
    folder = SafetensorsFolder(local_folder(source))
    config = _config(folder, dtype=dtype, param_dtype=param_dtype, **changes)
    model = nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))
    tensors = hf_tensors(model)
    _check(folder, tensors, config)
    graphdef, params = nnx.split(model)
    return nnx.merge(graphdef, _read(folder, tensors, params, shardings or first_device, progress))


def read_config(source: str | Path, **options: Any) -> ModelConfig:
    """The configuration that ``from_hf`` would give with the same arguments."""
    return _config(SafetensorsFolder(local_folder(source)), **options)


def to_hf(
    module: Decoder,
    folder: str | Path,
    *,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
    max_shard_size: int = 2 * 2**30,
    progress: Progress | None = None,
    **settings: Any,
) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` opens; whole or not at all.

    Parameters
    ----------
    module
        Gemma2 or GPTNeoX, on the devices of this process.
    folder
        Does not exist yet, or is empty.
    dtype
        Of the files: float32, bfloat16 or float16; by default that of the parameters.
    tokenizer
        File or folder of the tokenizer to put beside the weights; its special tokens go into the configuration.
    max_shard_size
        Bytes a file; host memory beyond the model's own is about as much.
    progress
        Told of the bytes written.
    settings
        Further keys of ``config.json``, e.g. ``max_position_embeddings``.

    Raises
    ------
    FileExistsError
        When ``folder`` holds something.
    ValueError
        When the model carries an adapter, or a value does not fit ``dtype``; names the tensor.
    """
    dtype = dtype or str(module.embedding.get_value().dtype)
    params = named_parameters(module)
    config = dataclasses.replace(module.config, param_dtype=dtype)
    with new_folder(folder) as partial_folder:
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial_folder)
            settings = {**settings, **_write_generation_config(tokenizer, partial_folder)}
        write_safetensors(partial_folder, _exported(module, params, dtype, progress), max_shard_size=max_shard_size)
        _write_json(partial_folder / "config.json", config_to_hf(config, **settings))


# ------------------------------------------------------------------------------------------------------- reading


def _config(
    folder: SafetensorsFolder, *, dtype: str | None = None, param_dtype: str | None = None, **changes: Any
) -> ModelConfig:
    path = folder.folder / "config.json"
    try:
        config = config_from_hf(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    ignored = NAMES[architecture_name(config)].ignored
    stored = {folder.dtype(name) for name in folder.tensors if not ignored.fullmatch(name)}
    dtype = dtype or ("bfloat16" if stored == {"bfloat16"} else "float32")
    return dataclasses.replace(config, dtype=dtype, param_dtype=param_dtype or dtype, **changes)


def _check(folder: SafetensorsFolder, tensors: list[HFTensor], config: ModelConfig) -> None:
    """Refuse a checkpoint whose tensors are not exactly those of the configuration."""
    kind = architecture_name(config)
    names, wanted = NAMES[kind], {t.name for t in tensors}
    if missing := [t.name for t in tensors if t.name not in folder.tensors]:
        raise ValueError(
            f"{folder.folder} lacks {len(missing)} of the {len(tensors)} tensors of its config.json, e.g. {missing[0]}"
        )
    for name, info in folder.tensors.items():
        if name not in wanted and name != names.tied and not names.ignored.fullmatch(name):
            raise ValueError(f"tensor {name} in {info.file} has no place in the {kind} of the folder's config.json")
    for t in tensors:
        info = folder.tensors[t.name]
        if info.shape != t.stored_shape:
            raise ValueError(
                f"tensor {t.name} in {info.file} has shape {info.shape}; by the folder's config.json it would be "
                f"{t.stored_shape}"
            )
    if names.tied in folder.tensors:
        _check_tied(folder, names.tied, f"{names.top['embedding']}.weight")


def _check_tied(folder: SafetensorsFolder, tied: str, embedding: str) -> None:
    """Refuse an output table that is not the embedding."""
    a, b = folder.tensors[tied], folder.tensors[embedding]
    rows = range(0, b.shape[0], COMPARED_ROWS)

    def differs(start: int) -> bool:
        part = (slice(start, min(start + COMPARED_ROWS, b.shape[0])),)
        return folder.read(tied, part).tobytes() != folder.read(embedding, part).tobytes()

    if a[1:] != b[1:] or any(map(differs, rows)):
        raise ValueError(f"tensor {tied} in {a.file} differs from {embedding}: Gemma-2's output table is its embedding")


def first_device(params: nnx.State) -> nnx.State:
    """All parameters on the first device of this process."""
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: sharding, params)


def _read(
    folder: SafetensorsFolder,
    tensors: list[HFTensor],
    params: nnx.State,
    shardings: Shardings,
    progress: Progress | None,
) -> nnx.State:
    """Fill abstract parameters from the files, in the order of the files.

    Stacks are filled as unsigned integers: on the CPU, XLA would rewrite a whole bfloat16 stack, through float32, for
    every block put into it.
    """
    flat = {tuple(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(params)}
    places = {tuple(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(shardings(params))}
    wanted = {t.name: t for t in tensors}
    arrays: dict[tuple[str, ...], jax.Array] = {}
    total = sum(folder.nbytes(name) for name in wanted)
    for name in folder.tensors:
        t = wanted.get(name)
        if t is None:
            continue
        value, sharding, stored = flat[t.path], places[t.path], folder.dtype(name)
        tensor = _on_devices(folder, t, sharding)
        if t.block is None:
            arrays[t.path] = tensor.astype(value.dtype)
        else:
            if t.path not in arrays:
                arrays[t.path] = jax.jit(partial(jnp.zeros, value.shape, _bits(value.dtype)), out_shardings=sharding)()
            arrays[t.path] = _place(stored, str(value.dtype), t.order, sharding)(arrays[t.path], tensor, t.block)
        arrays[t.path].block_until_ready()  # or tensors would pile up on the host
        if progress:
            progress(folder.nbytes(name), total)
    for path, array in arrays.items():
        if path[0] == "blocks":
            arrays[path] = _floats(str(flat[path].dtype), places[path])(array)
    return nnx.map_state(lambda path, variable: variable.replace(arrays[tuple(map(str, path))]), params)


def _on_devices(folder: SafetensorsFolder, t: HFTensor, sharding: Sharding) -> jax.Array:
    """A tensor in the layout of its file, its axes split, lying as the parameter that it is a part of.

    If the parameter is a stack, the tensor's bits.
    """
    parts: dict[Any, NDArray] = {}

    def part(index: tuple[slice, ...] | None) -> NDArray:
        assert index is not None
        key = tuple(s.indices(n) for s, n in zip(index, t.shape))
        if key not in parts:  # devices that hold the same part share it
            stored, shape, rest = t.stored_index(index)
            values = folder.read(t.name, stored).reshape(shape)[rest]
            parts[key] = values if t.block is None else values.view(_bits(values.dtype))
        return parts[key]

    if isinstance(sharding, NamedSharding):
        spec = (*sharding.spec, *[None] * len(t.shape))[t.block is not None :][: len(t.shape)]
        axes = [spec[t.order.index(axis)] for axis in range(len(t.shape))]
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(t.shape, sharding, part)


def _bits(dtype: Any) -> str:
    return f"uint{8 * jnp.dtype(dtype).itemsize}"


@lru_cache(maxsize=256)
def _place(stored: str, dtype: str, order: tuple[int, ...], sharding: Sharding) -> Callable[..., jax.Array]:
    """Program that writes a tensor over one block of a parameter, in place."""

    def place(parameter: jax.Array, tensor: jax.Array, block: int) -> jax.Array:
        value = tensor.transpose(order)
        if stored != dtype:
            value = bitcast(bitcast(value, stored).astype(dtype), parameter.dtype)
        return jax.lax.dynamic_update_index_in_dim(parameter, value, block, 0)

    return jax.jit(place, donate_argnums=0, out_shardings=sharding)


@lru_cache(maxsize=256)
def _floats(dtype: str, sharding: Sharding) -> Callable[[jax.Array], jax.Array]:
    """Program that takes bits for numbers, in place."""
    return jax.jit(lambda bits: bitcast(bits, dtype), out_shardings=sharding, donate_argnums=0)


# ------------------------------------------------------------------------------------------------------- writing


def _exported(
    module: Decoder, params: Mapping[tuple[str, ...], jax.Array], dtype: str, progress: Progress | None
) -> Iterator[tuple[str, NDArray]]:
    """Tensors under Hugging Face's names, in its layout."""
    total = sum(p.size for p in params.values()) * jnp.dtype(dtype).itemsize
    for t in hf_tensors(module):
        parameter = params[t.path]
        bits = np.asarray(_take(parameter, t.block, t.order))
        tensor = bits.view(parameter.dtype).reshape(t.stored_shape)
        with np.errstate(over="ignore"):
            array = tensor.astype(dtype)
        if dtype == "float16" and np.isfinite(tensor).sum() != np.isfinite(array).sum():
            raise ValueError(f"tensor {t.name} has values beyond float16; export it as bfloat16 or float32")
        yield t.name, array
        if progress:
            progress(array.nbytes, total)


@partial(jax.jit, static_argnames="order")
def _take(parameter: jax.Array, block: Any, order: tuple[int, ...]) -> jax.Array:
    """The bits of one block of a parameter, in the layout of its tensor."""
    value = parameter if block is None else jax.lax.dynamic_index_in_dim(parameter, block, keepdims=False)
    return bitcast(value, _bits(value.dtype)).transpose([order.index(axis) for axis in range(value.ndim)])


def _write_generation_config(tokenizer: str | Path, folder: Path) -> dict[str, Any]:
    """Tell ``generate`` where answers stop; returns the special tokens for ``config.json``."""
    t = load_tokenizer(tokenizer)
    ids = {"bos_token_id": t.bos_id, "eos_token_id": t.eos_id, "pad_token_id": t.pad_id}
    stops = t.stop_ids if len(t.stop_ids) > 1 else t.eos_id
    _write_json(folder / "generation_config.json", {**ids, "eos_token_id": stops})
    return ids


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
