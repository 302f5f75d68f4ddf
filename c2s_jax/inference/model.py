"""A model with its tokenizer, loaded from a folder."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from c2s_jax.generation import Sampler, Sampling
from c2s_jax.models import Decoder, ModelConfig
from c2s_jax.models.hub import local_folder
from c2s_jax.models.weights import load_model
from c2s_jax.parallel import make_mesh, parameter_shardings
from c2s_jax.text import Tokenizer, load_tokenizer

BATCH_SIZE = 16


class Model:
    """A language model ready for use.

    Attributes
    ----------
    graphdef, params
        Structure and weights, as ``nnx.merge`` takes them.
    tokenizer
        Of the checkpoint.
    mesh
        Devices that hold the weights.
    """

    def __init__(self, module: Decoder, tokenizer: Tokenizer, mesh: Mesh):
        if tokenizer.vocab_size > module.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size:,} pieces, the model {module.config.vocab_size:,}: "
                "it is not this model's"
            )
        self.graphdef, self.params = nnx.split(module)
        self.config: ModelConfig = module.config
        self.tokenizer, self.mesh = tokenizer, mesh

    @property
    def module(self) -> Decoder:
        """The module itself: called with tokens [B, T] it gives logits [B, T, V]."""
        return nnx.merge(self.graphdef, self.params)

    def complete(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Continue each prompt until a stop token or ``max_new_tokens``; the prompt is not repeated.

        Parameters
        ----------
        prompts
            Texts; whatever begins a sequence for this tokenizer is put before them.
        max_new_tokens
            Most tokens an answer.
        temperature, top_k, top_p
            How a token is drawn (``generation.Sampling``); by default the most probable one.
        seed
            Of the draws; an answer depends on it and on the prompt's place in the list.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of texts, not one text")
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        tokens = [np.array(bos + ids, np.int32) for ids in self.tokenizer.encode_batch(prompts)]
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        samples = self._sampler(self.params, tokens, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)
        return samples.texts(self.tokenizer.decode)

    @cached_property
    def _sampler(self) -> Sampler:
        t = self.tokenizer
        return Sampler(
            self.graphdef,
            stop_ids=t.stop_ids,
            pad_id=t.pad_id,
            vocab_size=t.vocab_size,
            batch_size=BATCH_SIZE,
            mesh=self.mesh,
        )


def load(
    source: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
    **changes: Any,
) -> Model:
    """Load a model and its tokenizer.

    Parameters
    ----------
    source
        A folder written by ``c2s_jax.convert``, a Hugging Face folder with safetensors files, or the name of a
        repository on its hub (owner/name).
    mesh
        Devices to spread the weights over (``parallel.make_mesh``); by default the first device.
    dtype
        Of weights and activations: float32 or bfloat16; by default as stored.
    tokenizer
        File or folder of the tokenizer, where it is not in ``source``.
    changes
        Other fields of the model's configuration, e.g. ``attention``.

    Raises
    ------
    FileNotFoundError
        When a file is missing; says which.
    ValueError
        When the files are not those of a supported model.
    """
    folder = local_folder(source)
    read = load_tokenizer(tokenizer or folder)
    mesh = mesh or make_mesh({"fsdp": 1}, jax.local_devices()[:1])
    module = load_model(folder, dtype=dtype, shardings=partial(parameter_shardings, mesh=mesh), **changes)
    return Model(module, read, mesh)
