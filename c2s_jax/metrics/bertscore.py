"""BERTScore: how well the tokens of an answer and a reference find each other in an encoder's hidden states."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from c2s_jax.metrics._checks import bucket

_PAIRS = 32


class TokenEncoder(Protocol):
    """What BERTScore asks of an encoder; `c2s_jax.encoders.TextEncoder` is one."""

    tokenizer: Any
    """With ``special_ids``, ``encode_batch(texts)``, and ``path`` and ``fingerprint`` for the configuration."""

    def token_states(self, texts: Sequence[str], *, layer: int | None = None) -> list[tuple[NDArray, NDArray]]:
        """Token ids [T] and hidden states [T, D] of each text, special tokens included."""


@dataclass(frozen=True)
class BertScore:
    """BERTScore of N candidates.

    Attributes
    ----------
    precision, recall, f1
        float64 [N].
    configuration
        What has to be published beside the numbers: encoder, layer, idf, rescaling.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    configuration: str

    @property
    def mean(self) -> float:
        """Mean F1."""
        return float(self.f1.mean())

    def __str__(self) -> str:
        p, r = self.precision.mean(), self.recall.mean()
        return f"BERTScore P {p:.4f}  R {r:.4f}  F1 {self.mean:.4f}  (n {len(self.f1)}, {self.configuration})"


def bertscore(
    candidates: Sequence[str],
    references: Sequence[str | Sequence[str]],
    encoder: TokenEncoder,
    *,
    layer: int | None = None,
    idf: bool = False,
    baseline: tuple[float, float, float] | None = None,
) -> BertScore:
    """BERTScore of answers (Zhang et al. 2020, arXiv:1904.09675, section 3), as the package ``bert_score`` has it.

    Each token of a candidate is matched with the reference token of the greatest cosine, and the other way round;
    precision is the mean over the candidate's tokens, recall over the reference's, F1 their harmonic mean. Special
    tokens may be matched but do not count. A text without tokens scores 0.

    Parameters
    ----------
    candidates, references
        N texts; a reference may be several texts, of which the best counts for precision, recall and F1 each.
    encoder
        A `c2s_jax.encoders.load_text_encoder`, say. The paper's scores: BioBERT v1.1 with ``layer=12``, roberta-large
        with ``layer=17``.
    layer
        Whose hidden states are compared, 0 the embeddings, None the last.
    idf
        Weigh tokens by their inverse document frequency in the references instead of alike.
    baseline
        (precision, recall, F1) of unrelated texts under the same configuration, which is put to 0 (1 stays 1).

    Returns
    -------
    BertScore
        Print it, or its `configuration`, wherever a number of it is shown: numbers of different ones do not compare.
    """
    groups = [[r] if isinstance(r, str) else list(r) for r in references]
    if isinstance(candidates, str) or len(candidates) != len(groups) or not groups:
        raise ValueError(f"candidates holds {len(candidates)} texts and references {len(groups)}; give one for each")
    if empty := [i for i, group in enumerate(groups) if not group]:
        raise ValueError(f"candidate {empty[0]} has no reference; leave it out")
    spaced = _needs_space(encoder)
    hypotheses = [_stripped(x, spaced) for x in candidates]
    targets = [_stripped(x, spaced) for group in groups for x in group]
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    texts = list(dict.fromkeys(hypotheses + targets))
    encoded = dict(zip(texts, encoder.token_states(texts, layer=layer)))
    weights = _weights(encoder, encoded, targets if idf else None)
    sides = {text: (_unit(states), weights[text]) for text, (_, states) in encoded.items()}
    scores = np.full((3, len(groups)), -np.inf)
    pairs = [(hypotheses[i], target) for i, target in zip(owner, targets)]
    for rows, found in _scored(pairs, sides):
        for score, values in zip(scores, found):
            np.maximum.at(score, owner[rows], values)
    if baseline is not None:
        floor = np.asarray(baseline, np.float64)[:, None]
        scores = (scores - floor) / (1 - floor)
    return BertScore(scores[0], scores[1], scores[2], _configuration(encoder, layer, idf, baseline is not None))


def _needs_space(encoder: TokenEncoder) -> bool:
    """Whether a word reads differently at the start of a text (byte-level BPE); such texts get a space in front."""
    bare, spaced = encoder.tokenizer.encode_batch(["a", " a"])
    return bare.tolist() != spaced.tolist()


def _stripped(text: str, spaced: bool) -> str:
    text = text.strip()
    return f" {text}" if spaced and text else text


def _weights(
    encoder: TokenEncoder, encoded: Mapping[str, tuple[NDArray, NDArray]], targets: list[str] | None
) -> dict[str, NDArray[np.float32]]:
    """Weights [T] of each text's tokens: 1 but for special tokens, or log((N + 1) / (df + 1)) in N `targets`."""
    if targets is None:
        special = list(encoder.tokenizer.special_ids)
        return {text: (~np.isin(ids, special)).astype(np.float32) for text, (ids, _) in encoded.items()}
    frequency = Counter(token for text in targets for token in set(encoded[text][0].tolist()))
    weigh = {token: np.log((len(targets) + 1) / (count + 1)) for token, count in frequency.items()}
    rare = np.log(len(targets) + 1)
    return {
        text: np.array([weigh.get(token, rare) for token in ids.tolist()], np.float32)
        for text, (ids, _) in encoded.items()
    }


def _unit(states: NDArray) -> NDArray[np.float32]:
    return (states / np.linalg.norm(states, axis=1, keepdims=True).clip(1e-30)).astype(np.float32)


def _scored(
    pairs: Sequence[tuple[str, str]], sides: Mapping[str, tuple[NDArray, NDArray]]
) -> Iterator[tuple[NDArray, NDArray]]:
    """Numbers of the pairs that were scored together, and precision, recall and F1 [3, pairs] of them."""
    shapes = np.array([[bucket(len(sides[text][1])) for text in pair] for pair in pairs])
    for shape in np.unique(shapes, axis=0):
        members = np.flatnonzero((shapes == shape).all(axis=1))
        for start in range(0, len(members), _PAIRS):
            rows = members[start : start + _PAIRS]
            arrays = [_stack([sides[pairs[r][side]] for r in rows], int(shape[side])) for side in (0, 1)]
            yield rows, np.asarray(_greedy(*arrays[0], *arrays[1]), np.float64)[:, : len(rows)]


def _stack(texts: Sequence[tuple[NDArray, NDArray]], length: int) -> tuple[NDArray, NDArray, NDArray]:
    """States [P, T, D], weights [P, T] and lengths [P]."""
    states = np.zeros((_PAIRS, length, texts[0][0].shape[1]), np.float32)
    weights, lengths = np.zeros((_PAIRS, length), np.float32), np.zeros(_PAIRS, np.int32)
    for i, (state, weight) in enumerate(texts):
        states[i, : len(state)], weights[i, : len(weight)], lengths[i] = state, weight, len(weight)
    return states, weights, lengths


@jax.jit
def _greedy(
    left: jax.Array,
    left_weights: jax.Array,
    left_lengths: jax.Array,
    right: jax.Array,
    right_weights: jax.Array,
    right_lengths: jax.Array,
) -> jax.Array:
    """Precision, recall and F1 [3, P]; 0 where a side has no weight."""
    cosines = jnp.einsum("PTD,PSD->PTS", left, right, precision=jax.lax.Precision.HIGHEST)
    inside = [jnp.arange(x.shape[1]) < n[:, None] for x, n in ((left, left_lengths), (right, right_lengths))]
    to_right = jnp.max(cosines, axis=2, where=inside[1][:, None, :], initial=-1.0)
    to_left = jnp.max(cosines, axis=1, where=inside[0][:, :, None], initial=-1.0)
    some = (left_weights.sum(1) > 0) & (right_weights.sum(1) > 0)
    precision, recall = (
        jnp.where(some, jnp.sum(best * weights, axis=1) / jnp.where(some, weights.sum(1), 1), 0)
        for best, weights in ((to_right, left_weights), (to_left, right_weights))
    )
    total = precision + recall
    return jnp.stack(
        [precision, recall, jnp.where(total == 0, 0, 2 * precision * recall / jnp.where(total == 0, 1, total))]
    )


def _configuration(encoder: TokenEncoder, layer: int | None, idf: bool, rescaled: bool) -> str:
    path = Path(encoder.tokenizer.path)
    name = path.name if path.is_dir() else path.parent.name
    parts = [
        name,
        f"L{'last' if layer is None else layer}",
        "idf" if idf else "no-idf",
        "rescaled" if rescaled else "raw",
        f"vocabulary={encoder.tokenizer.fingerprint[:8]}",
        "c2s_jax",
    ]
    return "_".join(parts)
