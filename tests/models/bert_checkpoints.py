"""Small BERTs and RoBERTas of transformers with random weights in which every part matters, and their folders."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

SIZES = dict(
    vocab_size=90,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=40,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LENGTHS = np.array([21, 3, 30, 1], np.int32)


def make_bert(kind: str = "bert", **changes: Any) -> Any:
    """A model of ``transformers`` whose norms have scales and biases, and whose attention is far from even."""
    torch.manual_seed(0)
    if kind == "roberta":
        options = dict(type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5)
        config: Any = transformers.RobertaConfig(**{**SIZES, **options, **changes})
        model: Any = transformers.RobertaModel(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**{**SIZES, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 0.3)
        # What a padding token is embedded as must not matter.
        model.embeddings.word_embeddings.weight[0].normal_(0.0, 3.0)
    return model.eval()


def save_bert(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def random_rows(seed: int = 0, width: int = 32) -> NDArray:
    """Tokens [B, width]; beyond ``LENGTHS`` they are random, too."""
    return np.random.default_rng(seed).integers(5, SIZES["vocab_size"], (len(LENGTHS), width), np.int32)


def hidden_states(model: Any, tokens: NDArray, lengths: NDArray, token_types: NDArray | None = None) -> list[NDArray]:
    """Hidden states of ``transformers``: of the embeddings and of each layer."""
    mask = torch.from_numpy((np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64))
    types = {} if token_types is None else {"token_type_ids": torch.from_numpy(token_types).long()}
    with torch.no_grad():
        out = model(torch.from_numpy(tokens).long(), attention_mask=mask, output_hidden_states=True, **types)
    return [state.numpy() for state in out.hidden_states]
