"""A layer, or a (local, global) pair, of every released size at its true width, against Hugging Face's."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.typing import NDArray
from transformers.initialization import no_init_weights

from c2s_jax.models import Gemma2Config, GPTNeoXConfig, ModelConfig, gemma2, gpt_neox, make_model
from tests.models import parity
from tests.models.hf_weights import centre, hf_architecture, hf_names

pytestmark = pytest.mark.slow

T, WINDOW = 40, 16
TOLERANCE, VISIBLE = 1e-5, 2e-4  # of the largest hidden state


def shared_model(config: ModelConfig, seed: int = 0) -> tuple[Any, nnx.State]:
    """Their model and our parameters: the same random numbers in the same memory, 4.5 GB for a pair of 27B."""
    with no_init_weights():
        theirs = hf_architecture(config)
    theirs.tie_weights()
    tensors = dict(theirs.named_parameters())
    generator = torch.Generator().manual_seed(seed)

    def fill(path: tuple, variable: nnx.Variable) -> nnx.Variable:
        name = ".".join(map(str, path))
        (hf_name,) = hf_names(name, config)
        parameter = tensors.pop(hf_name)
        spread = 3.0 * parameter.shape[1] ** -0.5 if name.endswith(".kernel") else 0.5
        numbers = torch.empty(variable.get_value().shape).uniform_(-spread, spread, generator=generator)
        numbers += centre(hf_name, config)
        shape = parameter.shape
        parameter.data = numbers.view(shape[::-1]).T if name.endswith(".kernel") else numbers.view(shape)
        return variable.replace(jnp.from_dlpack(numbers))

    state = nnx.map_state(fill, nnx.state(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0)))))
    assert not tensors
    return theirs, state


def hidden_of(config: ModelConfig, state: nnx.State, tokens: NDArray) -> NDArray:
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make_model(config, nnx.Rngs(0))))
    return parity.hidden_of(nnx.merge(graphdef, state), tokens)


def errors(config: ModelConfig, *wrong: ModelConfig) -> list[float]:
    """Of our hidden states, and of those under other configurations, relative to the largest hidden state."""
    theirs, state = shared_model(config)
    tokens = parity.random_tokens(config, (1, T), seed=0)
    with torch.no_grad():
        expected = theirs.base_model(torch.from_numpy(tokens).long()).last_hidden_state.numpy()
    found = (hidden_of(c, state, tokens) for c in (config, *wrong))
    return [np.abs(hidden - expected).max() / np.abs(expected).max() for hidden in found]


@pytest.mark.parametrize("size", gemma2.RELEASED)
def test_gemma2(size: str) -> None:
    """With a window that bites; the query scale is D / H for 27B and head_dim for the others, never the other one."""
    config = Gemma2Config(**gemma2.RELEASED[size] | dict(num_layers=2, vocab_size=64), sliding_window=WINDOW)
    (other_scale,) = {config.head_dim, config.embed_dim // config.num_heads} - {config.query_pre_attn_scalar}
    error, *wrong = errors(
        config,
        dataclasses.replace(config, query_pre_attn_scalar=other_scale),
        dataclasses.replace(config, attn_softcap=None),
        dataclasses.replace(config, sliding_window=WINDOW + 1),
    )
    assert error < TOLERANCE
    assert min(wrong) > VISIBLE


@pytest.mark.parametrize("size", gpt_neox.RELEASED)
def test_pythia(size: str) -> None:
    config = GPTNeoXConfig(**gpt_neox.RELEASED[size] | dict(num_layers=1, vocab_size=64))
    error, *wrong = errors(config, dataclasses.replace(config, rotary_fraction=0.5))
    assert error < TOLERANCE
    assert min(wrong) > VISIBLE
