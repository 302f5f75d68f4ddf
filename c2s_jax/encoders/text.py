"""Texts as vectors, by an encoder with its tokenizer."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from c2s_jax.data.by_length import by_length, padded
from c2s_jax.models.bert import Bert
from c2s_jax.models.bert_files import bert_from_hf, encoder_folder
from c2s_jax.text import EncoderTokenizer
from c2s_jax.text.tokenizer import read_json

Pooling = Literal["mean", "cls"]
POOLING = "1_Pooling/config.json"


class TextEncoder:
    """An encoder of texts ready for use.

    Parameters
    ----------
    module, tokenizer
        Of one checkpoint.
    pooling
        How a text's vector is made of its tokens': their mean, special tokens included, or the first one's.
    normalize
        Whether vectors are scaled to length 1.
    max_length
        Most tokens of a text that are read, special tokens included; by default as many as the model has positions for.
    batch_size
        Texts encoded at once; compiled programs have this many rows.

    Examples
    --------
    >>> encoder = load_text_encoder("sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> encoder.encode(["a B cell", "a T cell"]).shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(
        self,
        module: Bert,
        tokenizer: EncoderTokenizer,
        *,
        pooling: Pooling = "mean",
        normalize: bool = False,
        max_length: int | None = None,
        batch_size: int = 32,
    ):
        self.config = module.config
        if tokenizer.vocab_size > self.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {self.config.vocab_size:,}: "
                "it is not this model's"
            )
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling={pooling!r} is not one of {', '.join(get_args(Pooling))}")
        self.max_length = min(max_length or self.config.max_length, self.config.max_length)
        self.tokenizer, self.pooling, self.normalize, self.batch_size = tokenizer, pooling, normalize, batch_size
        self.graphdef, self.params = nnx.split(module)

    def encode(self, texts: Sequence[str], *, layer: int | None = None) -> NDArray[np.float32]:
        """A vector a text.

        Parameters
        ----------
        texts
            Any number of them; beyond ``max_length`` tokens they are cut off.
        layer
            Whose hidden states are pooled: 0 for the embeddings, None for the last.

        Returns
        -------
        float32 [N, D]
        """
        tokens = self.tokenizer.encode_batch(texts, self.max_length)
        pool = partial(_vectors, self.graphdef, layer=layer, pooling=self.pooling, normalize=self.normalize)
        out = np.empty((len(tokens), self.config.embed_dim), np.float32)
        for rows, batch, lengths in self._batches(tokens):
            out[rows] = pool(self.params, batch, lengths)[: len(rows)]
        return out

    def token_states(
        self, texts: Sequence[str], *, layer: int | None = None
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """Token ids [T] and hidden states float32 [T, D] of each text, special tokens included; see ``encode``."""
        tokens = self.tokenizer.encode_batch(texts, self.max_length)
        states: list[Any] = [None] * len(tokens)
        for rows, batch, lengths in self._batches(tokens):
            hidden = np.asarray(_states(self.graphdef, self.params, batch, lengths, layer=layer))
            for row, text in enumerate(rows):
                states[text] = hidden[row, : lengths[row]].copy()  # not the whole batch behind it
        return list(zip(tokens, states))

    def _batches(self, tokens: list[NDArray[np.int32]]) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        """Numbers of the texts, and their tokens [batch_size, T] with lengths; surplus rows have one token."""
        for rows, shape in by_length([len(ids) for ids in tokens], self.batch_size, longest=self.max_length):
            yield rows, *padded([tokens[row] for row in rows], shape, 0)


@partial(jax.jit, static_argnames=("graphdef", "layer"))
def _states(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    *,
    layer: int | None,
) -> Float[Array, "B T D"]:
    return nnx.merge(graphdef, params)(tokens, lengths, layer=layer).astype(jnp.float32)


@partial(jax.jit, static_argnames=("graphdef", "layer", "pooling", "normalize"))
def _vectors(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    *,
    layer: int | None,
    pooling: Pooling,
    normalize: bool,
) -> Float[Array, "B D"]:
    states = _states(graphdef, params, tokens, lengths, layer=layer)
    if pooling == "cls":
        vectors = states[:, 0]
    else:
        inside = jnp.arange(tokens.shape[1]) < lengths[:, None]
        vectors = jnp.where(inside[..., None], states, 0.0).sum(axis=1) / lengths[:, None]
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12) if normalize else vectors


def load_text_encoder(
    source: str | Path,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
) -> TextEncoder:
    """Load a BERT or RoBERTa with its tokenizer.

    Parameters
    ----------
    source
        Folder of ``transformers`` or ``sentence-transformers``, or the name of a repository on the Hugging Face hub.
    pooling, normalize, max_length
        See ``TextEncoder``. By default what the files of ``sentence-transformers`` say; without them the mean, not
        normalised, of as many tokens as there are positions.
    dtype
        Of weights and activations: float32 or bfloat16. Vectors are float32.

    Raises
    ------
    FileNotFoundError
        When a file is missing; says which.
    ValueError
        When the files are not those of a supported encoder.
    """
    folder = encoder_folder(source)
    given = dict(pooling=pooling, normalize=normalize, max_length=max_length)
    settings = _sentence_settings(folder) | {key: value for key, value in given.items() if value is not None}
    module, tokenizer = bert_from_hf(folder, dtype=dtype), EncoderTokenizer(folder)
    return TextEncoder(module, tokenizer, batch_size=batch_size, **settings)


def _sentence_settings(folder: Path) -> dict[str, Any]:
    """What the files of ``sentence-transformers`` say, if they are there."""
    settings: dict[str, Any] = {}
    limits, pooling, modules = folder / "sentence_bert_config.json", folder / POOLING, folder / "modules.json"
    if limits.is_file():
        settings["max_length"] = read_json(limits).get("max_seq_length")
    if pooling.is_file():
        settings["pooling"] = _pooling(read_json(pooling), pooling)
    if modules.is_file():
        kinds = [module["type"].rpartition(".")[2] for module in json.loads(modules.read_bytes())]
        settings["normalize"] = "Normalize" in kinds
        if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
            raise ValueError(f"{modules}: {', '.join(unknown)} is not supported")
    return settings


def _pooling(config: dict[str, Any], path: Path) -> str:
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in names:
        raise ValueError(f"{path}: {' with '.join(modes) or 'no mode'} is not supported, only {' or '.join(names)}")
    return names[modes[0]]
