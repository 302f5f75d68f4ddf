"""Adapters in the format of Hugging Face's ``peft``: ``adapter_config.json`` and ``adapter_model.safetensors``."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from c2s_jax.models import lora
from c2s_jax.models.architectures import architecture_name
from c2s_jax.models.decoder import Decoder
from c2s_jax.models.folders import new_folder
from c2s_jax.models.hf_tensors import NAMES
from c2s_jax.models.hub import local_folder
from c2s_jax.models.linear import Linear, linears

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DTYPES = ("F32", "BF16", "F16")

# Keys of the configuration that are read, and those that do not touch the output. Any other key that is set is refused.
_READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora"} | {
    *("rank_pattern", "alpha_pattern", "bias", "init_lora_weights")
}
_HARMLESS = {"auto_mapping", "base_model_name_or_path", "inference_mode", "megatron_core", "peft_version"} | {
    *("qalora_group_size", "revision", "task_type")
}
_UNSET = ("null", "false", '""', "[]", "{}")  # a 0 can be a setting
# Other initialisations change the base, too.
_PLAIN_INITS = (True, False, "gaussian", "orthogonal")


class _Map(NamedTuple):
    """One of our linear maps, and the modules of Hugging Face's that it stacks, in order."""

    name: str
    linear: Linear
    modules: list[str]


class _Update(NamedTuple):
    """What a configuration says of one linear map."""

    map: _Map
    rank: int
    scale: float


def save_adapter(model: Decoder, folder: str | Path, *, base_model: str = "") -> None:
    """Write the model's adapter so that ``peft.PeftModel.from_pretrained(base, folder)`` opens it; whole or not at all.

    Parameters
    ----------
    model
        Gemma2 or GPTNeoX with an adapter (``lora.add``, ``load_adapter``), on the devices of this process.
    folder
        Does not exist yet, or is empty.
    base_model
        Folder or hub name of the model that the adapter is for, to be noted in the configuration.

    Raises
    ------
    FileExistsError
        When ``folder`` holds something.
    ValueError
        When the model carries no adapter.
    """
    tensors: dict[str, NDArray] = {}
    settings: dict[str, tuple[int, float]] = {}  # rank and alpha of each module
    dropout = 0.0
    for _, linear, modules in _maps(model):
        if linear.lora_a is None or linear.lora_b is None:
            continue
        a, b = (np.asarray(p.get_value()) for p in (linear.lora_a, linear.lora_b))
        rank, dropout = a.shape[-1], max(dropout, linear.lora_dropout)
        for i, module in enumerate(modules):
            name_a, name_b = _tensor_names(module)
            tensors[name_a] = np.ascontiguousarray(a[i].reshape(-1, rank).T)
            tensors[name_b] = np.ascontiguousarray(b[i].reshape(rank, -1).T)
            settings[module] = rank, _alpha(linear.lora_b.get_metadata("scale"), rank)
    if not tensors:
        raise ValueError("the model carries no adapter; lora.add and load_adapter put one there")
    every = [module for *_, modules in _maps(model) for module in modules]
    config = _config(settings, every) | {"lora_dropout": dropout, "base_model_name_or_path": base_model or None}
    with new_folder(folder) as partial_folder:
        save_file(tensors, partial_folder / WEIGHTS, metadata={"format": "pt"})
        (partial_folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_adapter(model: Decoder, source: str | Path) -> None:
    """Put an adapter that ``peft`` or ``save_adapter`` wrote beside the model's kernels, in place of any there.

    Parameters
    ----------
    model
        Gemma2 or GPTNeoX; it may be abstract (``nnx.eval_shape``). It changes only when the whole adapter fits.
    source
        Folder of the adapter, or the name of a repository on the hub (owner/name).

    Raises
    ------
    FileNotFoundError
        When there is no such folder or repository, or it lacks one of the two files.
    ValueError
        When the configuration asks for something that is not supported (names the key), or the tensors are not
        exactly those of the configuration and the model (names the tensor and the file).
    """
    folder = local_folder(source)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            found = sorted(p.name for p in folder.iterdir())
            raise FileNotFoundError(f"no {name} in {folder} (it holds {found[:8]}); pickled adapters are not read")
    path = folder / CONFIG
    config = _read_config(path)
    try:
        updates = _updates(config, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    arrays = _read(folder / WEIGHTS, updates)
    lora.remove(model)
    dropout = config.get("lora_dropout", 0.0)
    for (m, _, scale), (a, b) in zip(updates, arrays):
        lora.attach(m.name, m.linear, jnp.asarray(a), jnp.asarray(b), scale=scale, dropout=dropout)


def _maps(model: Decoder) -> Iterator[_Map]:
    names = NAMES[architecture_name(model.config)]
    layers = model.blocks.layers
    for first, layer in enumerate(layers):
        for path, linear in linears(layer):
            module = names.layer[".".join(path)]
            indices = range(first, model.config.num_layers, len(layers))
            yield _Map(path[-1], linear, [f"{names.layers}.{i}.{module}" for i in indices])


def _tensor_names(module: str) -> tuple[str, str]:
    """Of A [rank, in] and of B [out, rank]."""
    return f"base_model.model.{module}.lora_A.weight", f"base_model.model.{module}.lora_B.weight"


# ---------------------------------------------------------------------------------------------- configuration


def _config(settings: dict[str, tuple[int, float]], every: list[str]) -> dict[str, Any]:
    """Content of ``adapter_config.json``; the commonest rank and alpha are the rule, others are exceptions to it."""
    ((rank, alpha), _), *_ = Counter(settings.values()).most_common(1)
    endings = {_ending(module) for module in settings}
    partly = any(_ending(module) in endings and module not in settings for module in every)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(settings if partly else endings),
        "rank_pattern": {module: r for module, (r, _) in settings.items() if r != rank},
        "alpha_pattern": {module: a for module, (_, a) in settings.items() if a != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _ending(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _alpha(scale: float, rank: int) -> float:
    """The alpha with ``alpha / rank == scale``, an integer where one will do."""
    whole = round(scale * rank)
    return whole if whole / rank == scale else scale * rank


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold an object, not {config!r}")
    return config


def _updates(config: dict[str, Any], model: Decoder) -> list[_Update]:
    """The linear maps that the configuration adapts, and how."""
    _refuse(config)
    ranks, alphas = _pattern(config, "rank_pattern"), _pattern(config, "alpha_pattern")
    targeted, maps = _target(config["target_modules"]), list(_maps(model))
    updates = []
    for m in maps:
        if not _alike(m, targeted, "target_modules"):
            continue
        rank = _alike(m, lambda module: ranks(module, config["r"]), "rank_pattern")
        alpha = _alike(m, lambda module: alphas(module, config["lora_alpha"]), "alpha_pattern")
        if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
            raise ValueError(f"r={rank!r} and lora_alpha={alpha!r} must be a positive integer and a number")
        updates.append(_Update(m, rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)))
    if not updates:
        endings = sorted({_ending(module) for m in maps for module in m.modules})
        raise ValueError(
            f"target_modules={config['target_modules']!r} names no linear map of this model; it has {endings}"
        )
    return updates


def _refuse(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ValueError(f"peft_type={config.get('peft_type')!r} is not supported, only 'LORA'")
    if missing := [key for key in ("r", "lora_alpha", "target_modules") if config.get(key) is None]:
        raise ValueError(f"{missing[0]} is not given")
    dropout = config.get("lora_dropout", 0.0)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise ValueError(f"lora_dropout={dropout!r} must be a number from 0 to below 1")
    for key, allowed in {"bias": ("none",), "init_lora_weights": _PLAIN_INITS}.items():
        if config.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{key}={config[key]!r} is not supported, only {', '.join(map(repr, allowed))}")
    for key, value in config.items():
        if json.dumps(value) not in _UNSET and key not in _READ and key not in _HARMLESS:
            raise ValueError(f"{key}={value!r} is not supported")


def _target(targets: Any) -> Callable[[str], bool]:
    """Whether a module is adapted: a string is a pattern for its whole name, a list has endings of names."""
    if targets == "all-linear":
        return lambda module: True
    if isinstance(targets, str):
        return lambda module: bool(_compiled("target_modules", targets).fullmatch(module))
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        raise ValueError(f"target_modules={targets!r} must be a string or a list of strings")
    return lambda module: any(module == t or module.endswith(f".{t}") for t in targets)


def _pattern(config: dict[str, Any], key: str) -> Callable[[str, Any], Any]:
    """A module's value in ``rank_pattern`` or ``alpha_pattern``: that of the first pattern for the end of its name."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{key}={patterns!r} must be an object")
    compiled = [(_compiled(key, rf"(.*\.)?({pattern})"), value) for pattern, value in patterns.items()]
    return lambda module, default: next((v for pattern, v in compiled if pattern.fullmatch(module)), default)


def _compiled(key: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key}: {pattern!r} is not a regular expression: {error}") from None


def _alike(m: _Map, value: Callable[[str], Any], key: str) -> Any:
    """The value that all layers of a map have; they are one stacked parameter."""
    values = {module: value(module) for module in m.modules}
    first, *others = m.modules
    for other in others:
        if values[other] != values[first]:
            raise ValueError(
                f"{key} sets {first} to {values[first]!r} and {other} to {values[other]!r}; "
                "a map must be the same in all layers of its kind"
            )
    return values[first]


# ---------------------------------------------------------------------------------------------------- tensors


def _read(path: Path, updates: list[_Update]) -> list[tuple[NDArray, NDArray]]:
    """``lora_a`` and ``lora_b`` of each map, float32."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            _check(path, file, updates)
            return [_stacked(file, update) for update in updates]
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut off or no safetensors file: {error}") from None


def _check(path: Path, file: Any, updates: list[_Update]) -> None:
    wanted: dict[str, tuple[int, ...]] = {}
    for m, rank, _ in updates:
        _, n_in, n_out = lora.shapes(m.linear)
        for module in m.modules:
            name_a, name_b = _tensor_names(module)
            wanted |= {name_a: (rank, math.prod(n_in)), name_b: (math.prod(n_out), rank)}
    found = set(file.keys())
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path} lacks tensor {missing[0]} ({len(missing)} of {len(wanted)} are missing)")
    if extra := sorted(found - wanted.keys()):
        raise ValueError(f"tensor {extra[0]} in {path} has no place in this model with this {CONFIG}")
    for name, shape in wanted.items():
        part = file.get_slice(name)
        if tuple(part.get_shape()) != shape or part.get_dtype() not in DTYPES:
            raise ValueError(
                f"tensor {name} in {path} is {part.get_dtype()} {tuple(part.get_shape())}; by {CONFIG} and the model "
                f"it would be {shape}, one of {', '.join(DTYPES)}"
            )


def _stacked(file: Any, update: _Update) -> tuple[NDArray, NDArray]:
    (_, linear, modules), rank, _ = update
    _, n_in, n_out = lora.shapes(linear)
    names = [_tensor_names(module) for module in modules]
    a, b = (np.stack([file.get_tensor(name).astype(np.float32).T for name in column]) for column in zip(*names))
    return a.reshape(-1, *n_in, rank), b.reshape(-1, rank, *n_out)
