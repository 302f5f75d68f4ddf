"""Gemma-2 checkpoints of the ``gemma`` package (Orbax), as released on Kaggle or saved by ``gm.ckpts.save_params``."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.lax import bitcast_convert_type as bitcast
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from c2s_jax.models.gemma2 import RELEASED, Gemma2, Gemma2Config
from c2s_jax.models.hf import Progress, Shardings, first_device

EMBEDDING, FINAL_NORM = "embedder/input_embedding", "final_norm/scale"
KINDS = ("local_layer", "global_layer")


class Stored(NamedTuple):
    """An array on disk: its keys in the checkpoint's tree, shape and dtype."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any


class Source(NamedTuple):
    """What one array of a layer holds.

    ``axes`` and ``our_axes`` spell dimensions in the package's letters (see ``_sizes``), of the array and of each of
    the ``parameters`` in it; more than one lie side by side along S.
    """

    axes: str
    parameters: tuple[str, ...]
    our_axes: str

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Of the array."""
        return tuple(len(self.parameters) if axis == "S" else sizes[axis] for axis in self.axes)

    def sharding(self, ours: Sharding) -> Sharding:
        """Where the array lies if its parameters, stacked over blocks, lie as ``ours``."""
        if not isinstance(ours, NamedSharding):
            return ours
        spec = dict(zip(self.our_axes, ours.spec[1:]))
        return NamedSharding(ours.mesh, PartitionSpec(*(spec.get(axis) for axis in self.axes)))

    def take(self, array: jax.Array) -> Iterable[jax.Array]:
        """The parameters, in our layout."""
        parts = jnp.unstack(array) if self.axes.startswith("S") else [array]
        order = [self.axes.lstrip("S").index(axis) for axis in self.our_axes]
        return (part.transpose(order) for part in parts)


NORMS = ("pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm")
SHARED = {
    "attn/attn_vec_einsum": Source("HED", ("attention.o.kernel",), "HED"),
    "mlp/linear": Source("FD", ("ffw.down.kernel",), "FD"),
    **{f"{norm}/scale": Source("D", (f"{norm}.scale",), "D") for norm in NORMS},
}
GROUPED = {
    "attn/q_einsum": Source("HDE", ("attention.q.kernel",), "DHE"),
    "attn/kv_einsum": Source("SKDE", ("attention.k.kernel", "attention.v.kernel"), "DKE"),
}
# Where there are as many kv heads as heads.
UNGROUPED = {"attn/qkv_einsum": Source("SHDE", tuple(f"attention.{x}.kernel" for x in "qkv"), "DHE")}
GATING = ("ffw.gate.kernel", "ffw.up.kernel")


def from_gemma(
    folder: str | os.PathLike[str],
    *,
    config: Gemma2Config | None = None,
    dtype: str | None = None,
    param_dtype: str | None = None,
    shardings: Shardings | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Gemma2:
    """Read a Gemma-2 checkpoint of the ``gemma`` package.

    Values are not changed, only transposed and stacked. One layer is read at a time, each device its part of it, and
    written into the stacks in place: memory beyond the model's own is that of one layer, and at the end on the CPU
    that of one stacked parameter.

    Parameters
    ----------
    folder
        The Orbax checkpoint (the folder with ``_METADATA``), local or of a store that Orbax reads, with a nested tree
        (``layer_0 / attn / ...``) or the released flat one (``transformer/layer_0/attn/...``).
    config
        Needed unless the sizes are those of a released model: shapes do not tell query scale, window and caps.
    dtype
        Of activations, and of parameters unless ``param_dtype`` is given. By default that of ``config``, or else that
        of the arrays: bfloat16 if all are, else float32.
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
        When ``folder`` is no Orbax checkpoint.
    ValueError
        When its arrays are not those of a Gemma-2 or of ``config``, or when ``config`` is needed; names the array.
    """
    path, stored = _open(folder)
    config = _config(path, stored, config, dtype=dtype, param_dtype=param_dtype, **changes)
    sources = _sources(path, stored)
    _check(path, stored, sources, config)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Gemma2(config, rngs=nnx.Rngs(0))))
    arrays = _read(path, stored, sources, params, (shardings or first_device)(params), progress)
    return nnx.merge(graphdef, nnx.map_state(lambda keys, v: v.replace(arrays[_name(keys)]), params))


def read_gemma_config(folder: str | os.PathLike[str], **options: Any) -> Gemma2Config:
    """The configuration that ``from_gemma`` would give with the same arguments; reads no array."""
    return _config(*_open(folder), **options)


# ------------------------------------------------------------------------------------------------- what is there


def _open(folder: str | os.PathLike[str]) -> tuple[epath.Path, dict[str, Stored]]:
    """The checkpoint's path and its arrays, by a name that is the same in all layouts."""
    path = epath.Path(folder)
    path = path if path.is_absolute() else epath.Path.cwd() / path
    metadata = ocp.PyTreeCheckpointer().metadata(path).item_metadata if path.is_dir() else None
    if metadata is None:
        raise FileNotFoundError(f"{path} is no Orbax checkpoint: give the folder that has the file _METADATA")
    out = {}
    for keys, array in flatten_dict(metadata.tree).items():
        name = "/".join(map(str, keys)).removeprefix("transformer/").removesuffix("/w")
        out[name] = Stored(keys, tuple(getattr(array, "shape", ())), getattr(array, "dtype", None))
    return path, out


def _array(path: epath.Path, stored: Mapping[str, Stored], name: str) -> Stored:
    if name not in stored:
        raise ValueError(f"{path}: array {name} is missing; this is no whole Gemma-2 checkpoint")
    return stored[name]


def _sources(path: epath.Path, stored: Mapping[str, Stored]) -> dict[str, Source]:
    """The arrays of a layer, by name; the first layer tells which of the layouts it is."""
    attention = UNGROUPED if "layer_0/attn/qkv_einsum" in stored else GROUPED
    F, D = _array(path, stored, "layer_0/mlp/linear").shape
    if F == D:
        raise ValueError(f"{path}: layer_0/mlp/linear is square, so how mlp/gating_einsum lies cannot be told")
    flipped = _array(path, stored, "layer_0/mlp/gating_einsum").shape[-1] == F
    return {**SHARED, **attention, "mlp/gating_einsum": Source("SDF" if flipped else "SFD", GATING, "DF")}


def _sizes(path: epath.Path, stored: Mapping[str, Stored]) -> dict[str, int]:
    """Sizes that the shapes tell, by our names for them."""
    letters: dict[str, int] = {}
    sources = _sources(path, stored)
    for name, source in sources.items():
        array = _array(path, stored, f"layer_0/{name}")
        if len(array.shape) != len(source.axes):
            raise ValueError(f"{path}: array layer_0/{name} has shape {array.shape}, not {len(source.axes)} dimensions")
        letters |= dict(zip(source.axes, array.shape))
    vocabulary, _ = _array(path, stored, EMBEDDING).shape
    return {
        "vocab_size": vocabulary,
        "embed_dim": letters["D"],
        "ffw_dim": letters["F"],
        "num_layers": len({match[0] for name in stored if (match := re.match(r"layer_\d+/", name))}),
        "num_heads": letters["H"],
        "num_kv_heads": letters.get("K", letters["H"]),
        "head_dim": letters["E"],
    }


def _config(
    path: epath.Path,
    stored: Mapping[str, Stored],
    config: Gemma2Config | None = None,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    **changes: Any,
) -> Gemma2Config:
    if config is None:
        dtype = dtype or ("bfloat16" if {str(a.dtype) for a in stored.values()} == {"bfloat16"} else "float32")
        config = _released(path, _sizes(path, stored))
    changes |= {"dtype": dtype} if dtype else {}
    changes |= {"param_dtype": param_dtype or dtype} if param_dtype or dtype else {}
    return dataclasses.replace(config, **changes)


def _released(path: epath.Path, sizes: dict[str, int]) -> Gemma2Config:
    """The released model that has these sizes; its table may be padded beyond the vocabulary."""
    for released in RELEASED.values():
        if all(released[key] == size for key, size in sizes.items() if key != "vocab_size"):
            return Gemma2Config(**released | sizes)
    found = ", ".join(f"{key}={size}" for key, size in sizes.items())
    raise ValueError(
        f"{path}: no released Gemma-2 has {found}; give config, for shapes do not tell query_pre_attn_scalar, "
        "sliding_window and the soft caps"
    )


def _check(path: epath.Path, stored: Mapping[str, Stored], sources: Mapping[str, Source], config: Gemma2Config) -> None:
    """Refuse a checkpoint whose arrays are not exactly those of the configuration."""
    sizes = {"V": config.vocab_size, "D": config.embed_dim, "F": config.ffw_dim, "E": config.head_dim}
    sizes |= {"H": config.num_heads, "K": config.num_kv_heads}
    wanted = {EMBEDDING: (sizes["V"], sizes["D"]), FINAL_NORM: (sizes["D"],)}
    for layer in range(config.num_layers):
        wanted |= {f"layer_{layer}/{name}": source.shape(sizes) for name, source in sources.items()}
    for name, shape in wanted.items():
        if (found := _array(path, stored, name).shape) != shape:
            raise ValueError(f"{path}: array {name} has shape {found}; by the configuration it would be {shape}")
    if extra := sorted(stored.keys() - wanted.keys()):
        raise ValueError(f"{path}: array {extra[0]} has no place in a Gemma-2 of {config.num_layers} layers")


# -------------------------------------------------------------------------------------------------------- reading


Restore = Callable[[Mapping[str, Sharding]], list[jax.Array]]
"""Reads arrays by name."""


def _read(
    path: epath.Path,
    stored: Mapping[str, Stored],
    sources: Mapping[str, Source],
    params: nnx.State,
    shardings: nnx.State,
    progress: Progress | None,
) -> dict[str, jax.Array]:
    """Every parameter by its dotted name."""
    values = {_name(keys): v.get_value() for keys, v in nnx.to_flat_state(params)}
    places = {_name(keys): v.get_value() for keys, v in nnx.to_flat_state(shardings)}
    total = sum(map(_nbytes, stored.values()))

    def restore(wanted: Mapping[str, Sharding]) -> list[jax.Array]:
        arrays = _restore(path, {stored[name]: place for name, place in wanted.items()})
        if progress:
            progress(sum(_nbytes(stored[name]) for name in wanted), total)
        return arrays

    out = {}
    for ours, name in (("embedding", EMBEDDING), ("final_norm.scale", FINAL_NORM)):
        (array,) = restore({name: places[ours]})
        out[ours] = array.astype(values[ours].dtype)
    for first, kind in enumerate(KINDS):
        prefix = f"blocks.{kind}."
        layers = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
        there = {name: places[prefix + name] for name in layers}
        stacks = _read_layers(restore, first, sources, layers, there)
        out |= {prefix + name: stack for name, stack in stacks.items()}
    return out


def _read_layers(
    restore: Restore,
    first: int,
    sources: Mapping[str, Source],
    ours: Mapping[str, jax.ShapeDtypeStruct],
    places: dict[str, Sharding],
) -> dict[str, jax.Array]:
    """The parameters ``ours`` of the layers ``first``, ``first`` + 2, ..., stacked.

    The stacks are unsigned integers until they are full: those XLA updates in place on every platform, while on the
    CPU it would rewrite a whole stack of bfloat16 as float32 for each layer.
    """
    bits = {name: f"uint{8 * value.dtype.itemsize}" for name, value in ours.items()}
    layouts = {name: source.sharding(places[source.parameters[0]]) for name, source in sources.items()}

    def empty() -> dict[str, jax.Array]:
        return {name: jnp.zeros(value.shape, bits[name]) for name, value in ours.items()}

    def write(stacks: dict[str, jax.Array], arrays: list[jax.Array], block: int) -> dict[str, jax.Array]:
        out = {}
        for array, source in zip(arrays, sources.values()):
            for name, value in zip(source.parameters, source.take(array)):
                value = bitcast(value.astype(ours[name].dtype), bits[name])
                out[name] = jax.lax.dynamic_update_index_in_dim(stacks[name], value, block, 0)
        return out

    def finish(name: str, stack: jax.Array) -> jax.Array:
        dtype = ours[name].dtype
        return jax.jit(lambda x: bitcast(x, dtype), donate_argnums=0, out_shardings=places[name])(stack)

    stacks = jax.jit(empty, out_shardings=places)()
    write_in_place = jax.jit(write, donate_argnums=0, out_shardings=places)
    for block in range(next(iter(ours.values())).shape[0]):
        layer = f"layer_{len(KINDS) * block + first}"
        arrays = restore({f"{layer}/{name}": place for name, place in layouts.items()})
        stacks = jax.block_until_ready(write_in_place(stacks, arrays, block))  # or layers would pile up
    return {name: jax.block_until_ready(finish(name, stacks.pop(name))) for name in ours}


def _restore(path: epath.Path, wanted: Mapping[Stored, Sharding]) -> list[jax.Array]:
    """Some of the checkpoint's arrays; no other is read."""
    abstract = {a.keys: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place) for a, place in wanted.items()}
    item = unflatten_dict(abstract)
    options = ocp.args.PyTreeRestore(
        item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
    )
    try:
        tree = flatten_dict(ocp.PyTreeCheckpointer().restore(path, args=options))
    except Exception as error:  # what Orbax raises has no type of its own, and its cause in it
        names = ", ".join("/".join(a.keys) for a in wanted)
        raise ValueError(f"{path}: cannot read {names}: {error.__cause__ or error}") from error
    return [tree[keys] for keys in abstract]


def _name(keys: Iterable[Any]) -> str:
    return ".".join(map(str, keys))


def _nbytes(array: Stored) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
