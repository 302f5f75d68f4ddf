"""Hugging Face's ``config.json`` and our model configurations.

What changes a model's output and is not done here is refused, with the key and its value. Keys that the classes of
``transformers`` would ignore are ignored here, too, with a warning.
"""

import dataclasses
import typing
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from c2s_jax.models.architectures import ARCHITECTURES, ModelConfig, architecture_name
from c2s_jax.models.gemma2 import Gemma2Config


class _Spelling(NamedTuple):
    """How one architecture's settings are called."""

    model_class: str
    fields: dict[str, str]
    """Our field by Hugging Face's key."""
    fixed: dict[str, tuple[Any, ...]]
    """Values that we can do, the first being what we write; an absent key means one of them."""
    defaults: dict[str, Any]
    """Written where the caller says nothing else; they do not touch the output."""
    activations: dict[str, str]
    """Our names of ``hidden_act``; empty where it is not read."""


_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "embed_dim",
    "intermediate_size": "ffw_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}
_TRAINING_ONLY = (0, 0.0, None)

_SPELLINGS = {
    "gemma2": _Spelling(
        "Gemma2ForCausalLM",
        _SIZES
        | {
            "num_key_value_heads": "num_kv_heads",
            "head_dim": "head_dim",
            "query_pre_attn_scalar": "query_pre_attn_scalar",
            "sliding_window": "sliding_window",
            "attn_logit_softcapping": "attn_softcap",
            "final_logit_softcapping": "final_softcap",
            "rms_norm_eps": "norm_eps",
        },
        {
            "hidden_activation": ("gelu_pytorch_tanh",),
            "attention_bias": (False,),
            "attention_dropout": _TRAINING_ONLY,
            "tie_word_embeddings": (True,),
        },
        {"max_position_embeddings": 8192, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
        {},
    ),
    "gpt_neox": _Spelling(
        "GPTNeoXForCausalLM",
        _SIZES | {"use_parallel_residual": "parallel_residual", "layer_norm_eps": "norm_eps"},
        {
            "attention_bias": (True,),
            "attention_dropout": _TRAINING_ONLY,
            "hidden_dropout": _TRAINING_ONLY,
            "tie_word_embeddings": (False,),
        },
        {"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1},
        {
            "gelu_pytorch_tanh": "gelu_tanh",
            "gelu": "gelu",
            "gelu_python": "gelu",
            "gelu_new": "gelu_tanh",
            "gelu_fast": "gelu_tanh",
        },
    ),
}

_NEVER = ("quantization_config", "auto_map", "use_bidirectional_attention")
"""Keys that must be absent or empty: other arithmetic, code of its own, another mask."""

_ROPE_KEYS = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "rotary_fraction": ("partial_rotary_factor", "rotary_pct"),
}

CARRIED = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
"""Keys that our configuration does not have, but that users of a ``config.json`` read."""

# Known not to touch the logits.
_HARMLESS = {
    *("_name_or_path", "architectures", "attn_implementation", "_attn_implementation", "cache_implementation"),
    *("_attn_implementation_autoset", "bos_token_id", "chunk_size_feed_forward", "classifier_dropout", "dtype"),
    *("eos_token_id", "finetuning_task", "hidden_act", "hidden_activation", "id2label", "initializer_range"),
    *("is_decoder", "is_encoder_decoder", "label2id", "max_position_embeddings", "model_type", "output_attentions"),
    *("output_hidden_states", "pad_token_id", "problem_type", "return_dict", "sliding_window_size", "torch_dtype"),
    *("transformers_version", "use_cache"),
}


def config_from_hf(hf: Mapping[str, Any], **changes: Any) -> ModelConfig:
    """Our configuration for a ``config.json`` of ``transformers`` 4 or 5.

    Parameters
    ----------
    hf
        Content of the file.
    changes
        Fields of our configuration to set otherwise, e.g. ``dtype``, ``remat``.

    Raises
    ------
    ValueError
        Another architecture, a missing size, or a setting that is not supported; names the key and its value.
    """
    kind = hf.get("model_type")
    if kind not in _SPELLINGS:
        raise ValueError(f"model_type={kind!r} is not one of {', '.join(_SPELLINGS)}")
    spelling, config_class = _SPELLINGS[kind], ARCHITECTURES[kind][1]
    _refuse(hf, spelling)
    kinds = {field.name: field for field in dataclasses.fields(config_class)}
    settings = {field: _checked(key, hf[key], kinds[field].type) for key, field in spelling.fields.items() if key in hf}
    missing = [k for k, f in spelling.fields.items() if f not in settings and kinds[f].default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{', '.join(missing)} not given")
    settings |= _rope(hf, kind)
    if kind == "gemma2":
        _check_layers(hf, settings["num_layers"])
    else:
        settings["activation"] = _activation(hf, spelling)
    _warn_of_unknown(hf, spelling)
    return config_class(**{**settings, **changes})


def config_to_hf(config: ModelConfig, **settings: Any) -> dict[str, Any]:
    """Content of a ``config.json`` that ``transformers`` 4 and 5 read.

    Parameters
    ----------
    settings
        Keys of Hugging Face's that our configuration does not have, e.g. ``max_position_embeddings``.
    """
    kind = architecture_name(config)
    spelling = _SPELLINGS[kind]
    out = {
        "architectures": [spelling.model_class],
        "model_type": kind,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": config.param_dtype,
        **spelling.defaults,
        **settings,
        **{key: allowed[0] for key, allowed in spelling.fixed.items()},
        **{key: getattr(config, field) for key, field in spelling.fields.items()},
    }
    if isinstance(config, Gemma2Config):
        scalar = config.query_pre_attn_scalar
        out["query_pre_attn_scalar"] = int(scalar) if scalar.is_integer() else scalar  # transformers 5: an integer
        return out | {"rope_theta": config.rope_theta}
    names = {ours: theirs for theirs, ours in reversed(spelling.activations.items())}
    out |= {"hidden_act": names[config.activation], "rotary_emb_base": config.rope_theta}
    out |= {"rotary_pct": config.rotary_fraction}
    if config.rope_scale != 1.0:
        out["rope_scaling"] = {"type": "linear", "rope_type": "linear", "factor": config.rope_scale}
    return out


def _refuse(hf: Mapping[str, Any], spelling: _Spelling) -> None:
    for key, allowed in spelling.fixed.items():
        if key in hf and hf[key] not in allowed:
            why = " (it acts in training only: set it to 0)" if allowed is _TRAINING_ONLY else ""
            raise ValueError(f"{key}={hf[key]!r} is not supported, only {allowed[0]!r}{why}")
    for key in _NEVER:
        if hf.get(key):
            raise ValueError(f"{key}={hf[key]!r} is not supported")


def _checked(key: str, value: Any, kind: Any) -> Any:
    """``value``, if its type is that of our field; an integer may stand for a float."""
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
        value = float(value)
    if type(value) not in kinds:
        wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise ValueError(f"{key}={value!r} must be {wanted}")
    return value


def _rope(hf: Mapping[str, Any], kind: str) -> dict[str, float]:
    """Rotary settings: at the top level (transformers 4), or in ``rope_parameters`` (5)."""
    scaling = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping) or any(isinstance(v, Mapping) for v in scaling.values()):
        raise ValueError(f"rope_parameters={scaling!r} is not supported, only one setting for all layers")
    type_ = scaling.get("rope_type", scaling.get("type", "default"))
    allowed = {"gemma2": ("default",), "gpt_neox": ("default", "linear")}[kind]
    if type_ not in allowed:
        raise ValueError(f"rope_type={type_!r} is not supported for {kind}, only {', '.join(allowed)}")
    found = {ours: _agreed(hf, scaling, theirs) for ours, theirs in _ROPE_KEYS.items()}
    if kind == "gemma2" and found.pop("rotary_fraction") not in (None, 1.0):
        raise ValueError("partial_rotary_factor is not supported for gemma2, only 1.0")
    if type_ == "linear":
        found["rope_scale"] = _checked("factor", scaling.get("factor"), float)
    return {key: value for key, value in found.items() if value is not None}


def _agreed(hf: Mapping[str, Any], scaling: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The value that any of ``names`` has, in either place; None where none has one."""
    given = {(name, source[name]) for source in (hf, scaling) for name in names if source.get(name) is not None}
    values = {_checked(name, value, float) for name, value in given}
    if len(values) > 1:
        raise ValueError(f"{' and '.join(f'{name}={value!r}' for name, value in sorted(given))} contradict each other")
    return values.pop() if values else None


def _activation(hf: Mapping[str, Any], spelling: _Spelling) -> str:
    name = hf.get("hidden_act", "gelu")
    if name not in spelling.activations:
        raise ValueError(f"hidden_act={name!r} is not supported, only {', '.join(spelling.activations)}")
    return spelling.activations[name]


def _check_layers(hf: Mapping[str, Any], depth: int) -> None:
    kinds = hf.get("layer_types")
    if kinds is not None and kinds != ["sliding_attention", "full_attention"] * (depth // 2):
        raise ValueError(f"layer_types={kinds} is not supported, only sliding_attention and full_attention in turn")


def _warn_of_unknown(hf: Mapping[str, Any], spelling: _Spelling) -> None:
    rope = {
        "rope_parameters",
        "rope_scaling",
        "layer_types",
        *(name for names in _ROPE_KEYS.values() for name in names),
    }
    known = {*spelling.fields, *spelling.fixed, *_NEVER, *rope, *_HARMLESS}
    unknown = [f"{key}={value!r}" for key, value in hf.items() if key not in known]
    if unknown:
        warnings.warn(f"config.json: unknown keys are ignored: {', '.join(unknown)}", stacklevel=3)
