"""Tiny checkpoints as ``transformers`` writes them, and checkpoints of arbitrary bits."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.models import hf_weights

VOCABULARY = 98  # the mesh of the tests divides it

# Nothing is at its default, so that a key that is not read shows.
GEMMA = dataclasses.replace(hf_weights.TINY, vocab_size=VOCABULARY)
NEOX: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    rotary_pct=0.5,
    rotary_emb_base=100.0,
    rope_scaling={"rope_type": "linear", "factor": 2.5},
    layer_norm_eps=0.05,
    use_parallel_residual=False,
    hidden_act="gelu_new",
    max_position_embeddings=333,
    bos_token_id=None,
    eos_token_id=None,
)
KINDS = ("gemma2", "gpt_neox")


def hf_model(kind: str) -> transformers.PreTrainedModel:
    """A random float32 model with eager attention whose every parameter bites."""
    if kind == "gemma2":
        return hf_weights.hf_model(GEMMA)
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NEOX, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            spread = 0.5 if p.ndim == 1 else 2.0 * p.shape[1] ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * spread)
    return model


def hf_logits(model: transformers.PreTrainedModel, tokens: NDArray) -> NDArray:
    """Logits [B, T, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long()).logits.float().numpy()


def reopened(folder: Path, **options: Any) -> transformers.PreTrainedModel:
    """A folder, opened as its users would."""
    options = {"dtype": torch.float32, "attn_implementation": "eager", **options}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def tokens(batch: int = 2, time: int = 40) -> NDArray:
    """Random token ids [B, T]."""
    return np.random.default_rng(1).integers(0, VOCABULARY, (batch, time), np.int32)


def stored(folder: Path) -> dict[str, NDArray]:
    """Every tensor of a folder, read by the safetensors library."""
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def checkpoint_of_bits(template: Path, folder: Path, dtype: str) -> dict[str, NDArray]:
    """A checkpoint like ``template`` of random bits: tiny, huge, infinite, not a number."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    bits = np.dtype(f"uint{8 * kind.itemsize}")
    rng = np.random.default_rng(2)
    tensors = {
        name: rng.integers(0, np.iinfo(bits).max, value.shape, bits, endpoint=True).view(kind)
        for name, value in stored(template).items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text((template / "config.json").read_text())
    return tensors


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's ``config.json``; None takes a key away."""
    path = folder / "config.json"
    merged = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))
