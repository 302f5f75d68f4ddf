"""config.json in the spellings of transformers 4 and 5, and everything in it that we do not do."""

import dataclasses
import warnings
from typing import Any

import pytest
import transformers

from c2s_jax.models import Gemma2Config, GPTNeoXConfig
from c2s_jax.models.gemma2 import RELEASED as GEMMAS
from c2s_jax.models.gpt_neox import RELEASED as PYTHIAS
from c2s_jax.models.hf_config import config_from_hf, config_to_hf

# As transformers 4 wrote them; no value is a default of anything.
GEMMA_4: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 1.5,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 2.0,
    "head_dim": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 24,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 20,
    "rms_norm_eps": 0.05,
    "rope_theta": 100,
    "sliding_window": 7,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.4",
    "use_cache": True,
    "vocab_size": 97,
}
OUR_GEMMA = Gemma2Config(
    vocab_size=97,
    embed_dim=24,
    ffw_dim=40,
    num_layers=6,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    query_pre_attn_scalar=20.0,
    sliding_window=7,
    attn_softcap=1.5,
    final_softcap=2.0,
    rope_theta=100.0,
    norm_eps=0.05,
)
NEOX_4: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "classifier_dropout": 0.1,
    "eos_token_id": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout": 0.0,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "layer_norm_eps": 0.05,
    "max_position_embeddings": 8192,
    "model_type": "gpt_neox",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "partial_rotary_factor": 0.5,
    "rope_scaling": {"type": "linear", "factor": 4},
    "rope_theta": 100,
    "rotary_emb_base": 100,
    "rotary_pct": 0.5,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.46.0",
    "use_cache": True,
    "use_parallel_residual": False,
    "vocab_size": 97,
}
OUR_NEOX = GPTNeoXConfig(
    vocab_size=97,
    embed_dim=32,
    ffw_dim=48,
    num_layers=3,
    num_heads=4,
    rotary_fraction=0.5,
    rope_theta=100.0,
    rope_scale=4.0,
    parallel_residual=False,
    activation="gelu_tanh",
    norm_eps=0.05,
)
CASES = [(GEMMA_4, OUR_GEMMA), (NEOX_4, OUR_NEOX)]


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def without(hf: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in hf.items() if k not in keys}


@pytest.mark.parametrize(("hf", "ours"), CASES)
def test_read(hf: dict[str, Any], ours: Any) -> None:
    assert config_from_hf(hf) == ours
    assert config_from_hf(hf, remat="full") == dataclasses.replace(ours, remat="full")


@pytest.mark.parametrize(("hf", "ours"), CASES)
def test_read_as_transformers_5_writes(hf: dict[str, Any], ours: Any) -> None:
    """Their own classes read the old spelling and write the new one."""
    new = transformers.AutoConfig.for_model(**hf).to_dict()
    assert "rope_parameters" in new
    assert config_from_hf(new) == ours


@pytest.mark.parametrize(("hf", "ours"), CASES)
def test_written_as_they_read_it(hf: dict[str, Any], ours: Any) -> None:
    """What we write means to transformers what the original meant."""
    written = config_to_hf(ours, max_position_embeddings=8192, **{k: hf[k] for k in hf if k.endswith("token_id")})
    theirs, original = (transformers.AutoConfig.for_model(**x).to_dict() for x in (written, hf))
    assert theirs.pop("dtype") == "float32"
    same = theirs.keys() - {"dtype", "transformers_version", "pad_token_id", "hidden_act", "cache_implementation"}
    assert {k: theirs[k] for k in same} == {k: original[k] for k in same}
    assert config_from_hf(written) == ours
    assert config_from_hf(transformers.AutoConfig.for_model(**written).to_dict()) == ours


@pytest.mark.parametrize("sizes", [*GEMMAS.values(), *PYTHIAS.values()], ids=[*GEMMAS, *PYTHIAS])
def test_released_sizes(sizes: dict[str, Any]) -> None:
    """Of every size what is written is read again, and transformers' class accepts it."""
    ours = (Gemma2Config if "num_kv_heads" in sizes else GPTNeoXConfig)(**sizes)
    written = config_to_hf(ours)
    assert config_from_hf(written) == ours
    assert config_from_hf(transformers.AutoConfig.for_model(**written).to_dict()) == ours
    assert written["torch_dtype"] == "float32"


def test_absent_keys_mean_transformers_defaults() -> None:
    optional = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "rope_theta", "rms_norm_eps")
    gemma = without(GEMMA_4, *optional, "attention_bias", "attention_dropout", "hidden_activation")
    theirs = transformers.AutoConfig.for_model(**gemma).to_dict()
    assert config_from_hf(gemma) == config_from_hf(theirs)
    rope = ("rope_theta", "rotary_emb_base", "rotary_pct", "partial_rotary_factor", "rope_scaling")
    neox = without(NEOX_4, *rope, "layer_norm_eps", "use_parallel_residual", "hidden_act", "attention_bias")
    theirs = transformers.AutoConfig.for_model(**neox).to_dict()
    assert config_from_hf(neox) == config_from_hf(theirs)


def test_caps_may_be_off() -> None:
    off = config_from_hf({**GEMMA_4, "attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (off.attn_softcap, off.final_softcap) == (None, None)  # type: ignore[union-attr]
    written = config_to_hf(off)
    assert (written["attn_logit_softcapping"], written["final_logit_softcapping"]) == (None, None)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"])
def test_activations(name: str) -> None:
    """Those that are the same function, by transformers' own."""
    import torch
    from transformers.activations import ACT2FN

    found = config_from_hf({**NEOX_4, "hidden_act": name})
    x = torch.linspace(-5, 5, 101)
    ours = torch.nn.functional.gelu(x, approximate="tanh" if found.activation == "gelu_tanh" else "none")
    torch.testing.assert_close(ACT2FN[name](x), ours, atol=1e-6, rtol=0)
    assert config_from_hf(config_to_hf(found)) == found


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"model_type": "llama"}, r"model_type='llama' is not one of gemma2, gpt_neox"),
    ({}, {"model_type": None}, r"model_type=None is not one of"),
    (GEMMA_4, {"hidden_activation": "silu"}, r"hidden_activation='silu' is not supported, only 'gelu_pytorch_tanh'"),
    (GEMMA_4, {"attention_bias": True}, r"attention_bias=True is not supported, only False"),
    (GEMMA_4, {"attention_dropout": 0.1}, r"attention_dropout=0.1 is not supported, only 0 \(it acts in training only"),
    (GEMMA_4, {"tie_word_embeddings": False}, r"tie_word_embeddings=False is not supported, only True"),
    (GEMMA_4, {"use_bidirectional_attention": True}, r"use_bidirectional_attention=True is not supported"),
    (GEMMA_4, {"quantization_config": {"bits": 4}}, r"quantization_config=\{'bits': 4\} is not supported"),
    (GEMMA_4, {"auto_map": {"AutoModel": "x.Y"}}, r"auto_map=.* is not supported"),
    (GEMMA_4, {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_type='linear' is not supported for gemma2"),
    (GEMMA_4, {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, r"rope_type='yarn' is not supported"),
    (GEMMA_4, {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, r"only one setting for all layers"),
    (GEMMA_4, {"rope_parameters": {"rope_theta": 99.0}}, r"rope_theta=99.0 and rope_theta=100 contradict each other"),
    (GEMMA_4, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor is not supported for gemma2"),
    (GEMMA_4, {"layer_types": ["full_attention"] * 6}, r"layer_types=\['full_attention'"),
    (GEMMA_4, {"layer_types": ["full_attention", "sliding_attention"] * 3}, r"layer_types="),
    (GEMMA_4, {"layer_types": ["sliding_attention", "full_attention"] * 2}, r"layer_types="),
    (GEMMA_4, {"num_hidden_layers": 5}, r"num_layers must be even"),
    (GEMMA_4, {"num_key_value_heads": 3}, r"num_heads=4 must be a multiple of num_kv_heads=3"),
    (GEMMA_4, {"sliding_window": None}, r"sliding_window=None must be int"),
    (GEMMA_4, {"hidden_size": "24"}, r"hidden_size='24' must be int"),
    (GEMMA_4, {"hidden_size": True}, r"hidden_size=True must be int"),
    (GEMMA_4, {"attn_logit_softcapping": "x"}, r"attn_logit_softcapping='x' must be float or null"),
    (NEOX_4, {"attention_bias": False}, r"attention_bias=False is not supported, only True"),
    (NEOX_4, {"attention_dropout": 0.1}, r"attention_dropout=0.1 is not supported"),
    (NEOX_4, {"hidden_dropout": 0.1}, r"hidden_dropout=0.1 is not supported"),
    (NEOX_4, {"tie_word_embeddings": True}, r"tie_word_embeddings=True is not supported, only False"),
    (NEOX_4, {"hidden_act": "relu"}, r"hidden_act='relu' is not supported, only .*gelu"),
    (NEOX_4, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, r"rope_type='dynamic' is not supported"),
    (NEOX_4, {"rope_scaling": {"type": "linear"}}, r"factor=None must be float"),
    (NEOX_4, {"rotary_pct": 0.25}, r"partial_rotary_factor=0.5 and rotary_pct=0.25 contradict each other"),
    (NEOX_4, {"rotary_emb_base": 10}, r"rope_theta=100 and rotary_emb_base=10 contradict each other"),
    (NEOX_4, {"use_parallel_residual": 1}, r"use_parallel_residual=1 must be bool"),
    (NEOX_4, {"num_attention_heads": 5}, r"embed_dim=32 must be a multiple of num_heads=5"),
]


@pytest.mark.parametrize(("hf", "change", "message"), REFUSED, ids=[str(change)[:60] for _, change, _ in REFUSED])
def test_refused(hf: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_hf({**hf, **change})


@pytest.mark.parametrize("hf", [GEMMA_4, NEOX_4], ids=["gemma2", "gpt_neox"])
@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
def test_sizes_must_be_given(hf: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} not given"):
        config_from_hf(without(hf, key))


def test_unknown_keys_are_named_but_passed_over() -> None:
    with pytest.warns(UserWarning, match=r"unknown keys are ignored: some_new_norm=True, other=3"):
        config_from_hf({**GEMMA_4, "some_new_norm": True, "other": 3})
