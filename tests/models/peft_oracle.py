"""The ``peft`` package as an oracle of adapter files, on tiny models of both architectures."""

import dataclasses
from pathlib import Path
from typing import Any

import peft
import torch
from flax import nnx
from numpy.typing import NDArray

from c2s_jax.models import Decoder, lora
from tests.models import parity
from tests.models.adapters import randomize
from tests.models.hf_weights import TINY, TINY_GPT_NEOX, hf_model, our_model
from tests.models.parity import hf_logits

CONFIGS: dict[str, Any] = {"gemma2": TINY, "gpt_neox": TINY_GPT_NEOX}
TOKENS = parity.random_tokens(TINY, (2, 24), seed=0)
TARGETS = {
    "gemma2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}
SUBSETS = {
    "gemma2": (("q", "v", "down"), ["q_proj", "v_proj", "down_proj"]),
    "gpt_neox": (("qkv", "o"), ["query_key_value", "dense"]),
}


def pair(architecture: str, **changes: Any) -> tuple[Any, Decoder]:
    """A model of ``transformers`` and ours, with the same random weights."""
    config = dataclasses.replace(CONFIGS[architecture], **changes)
    theirs = hf_model(config)
    return theirs, our_model(theirs, config)


def adapted(architecture: str, targets: tuple[str, ...] = ("all",), **settings: Any) -> Decoder:
    """Our model with a random adapter."""
    _, model = pair(architecture)
    lora.add(model, lora.LoRAConfig(rank=3, alpha=7.0, targets=targets, **settings), nnx.Rngs(0))
    randomize(model)
    return model


def written_by_peft(folder: Path, architecture: str, **settings: Any) -> NDArray:
    """Write a random adapter, A and B both, with ``peft``; its logits."""
    defaults: dict[str, Any] = dict(r=3, lora_alpha=7, target_modules=TARGETS[architecture], task_type="CAUSAL_LM")
    config = peft.LoraConfig(init_lora_weights=False, **{**defaults, **settings})
    wrapped = peft.get_peft_model(hf_model(CONFIGS[architecture]), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    wrapped.save_pretrained(folder)
    return hf_logits(wrapped, TOKENS)


def opened_by_peft(folder: Path, architecture: str) -> Any:
    return peft.PeftModel.from_pretrained(hf_model(CONFIGS[architecture]), folder).eval()
