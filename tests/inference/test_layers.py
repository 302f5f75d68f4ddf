"""Hidden states after every layer, against ``transformers`` on the same weights."""

import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from c2s_jax.models.hf import from_hf
from tests.models import hf_checkpoints, hf_weights


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox"])
def test_hidden_states_after_each_layer(kind, tmp_path):
    """Gemma-2's layers come in pairs: odd numbers end within one."""
    torch.manual_seed(0)
    if kind == "gemma2":
        theirs = hf_weights.hf_model(hf_weights.TINY)
    else:
        theirs = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**hf_checkpoints.NEOX))
    theirs.eval().save_pretrained(tmp_path / "hf")
    model = from_hf(tmp_path / "hf")
    tokens = np.random.default_rng(0).integers(1, theirs.config.vocab_size, (2, 24))
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens), output_hidden_states=True).hidden_states
    assert len(wanted) == model.config.num_layers + 1
    hidden_after = nnx.jit(type(model).hidden_after, static_argnums=2)
    for layer, states in enumerate(wanted):
        found = np.asarray(hidden_after(model, tokens, layer))
        np.testing.assert_allclose(found, states.numpy(), atol=2e-5, rtol=1e-4, err_msg=f"layer {layer}")
    assert np.abs(wanted[1].numpy() - wanted[2].numpy()).max() > 2e-3
