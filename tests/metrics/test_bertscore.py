"""BERTScore against the package ``bert_score`` with the same weights."""

from pathlib import Path
from typing import Any

import bert_score
import numpy as np
import pytest
from transformers import BertTokenizer

from c2s_jax.encoders import TextEncoder, load_text_encoder
from c2s_jax.metrics import BertScore, bertscore
from tests.models.bert_checkpoints import SIZES, make_bert, save_bert

WORDS = (
    "cell cells type immune marker genes express high low blood naive memory cluster donor the of with and in a".split()
)
CANDIDATES = [
    "naive immune cells with high marker genes",
    "the cluster of memory cells",
    "blood",
    "high memory",
    "a donor and a cluster in the blood of a donor",
]
REFERENCES = [
    "immune cells express marker genes",
    "a cluster with memory type cells in the blood",
    "blood cells of the donor",
    "naive cells",
    "a donor",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a WordPiece vocabulary."""
    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    save_bert(make_bert(), folder)
    letters = "abcdefgh"
    vocabulary = "[PAD] [UNK] [CLS] [SEP] [MASK] and in".split() + WORDS + [*letters, *(f"##{x}" for x in letters)]
    vocabulary += [f"[unused{i}]" for i in range(SIZES["vocab_size"] - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=SIZES["max_position_embeddings"]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return load_text_encoder(folder, batch_size=4)


def peer(folder: Path, candidates: Any, references: Any, layer: int, idf: bool) -> np.ndarray[Any, Any]:
    """Precision, recall and F1 [3, N] of the package."""
    scores = bert_score.score(
        list(candidates), list(references), model_type=str(folder), num_layers=layer, idf=idf, nthreads=0
    )
    return np.stack([x.numpy() for x in scores])


def stacked(found: BertScore) -> np.ndarray[Any, Any]:
    return np.stack([found.precision, found.recall, found.f1])


@pytest.mark.parametrize(("layer", "idf"), [(2, False), (3, False), (2, True)])
def test_agrees_with_bert_score(folder: Path, encoder: TextEncoder, layer: int, idf: bool) -> None:
    want = peer(folder, CANDIDATES, REFERENCES, layer, idf)
    got = stacked(bertscore(CANDIDATES, REFERENCES, encoder, layer=layer, idf=idf))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.ptp(want) > 0.02


def test_the_best_of_several_references_counts(folder: Path, encoder: TextEncoder) -> None:
    references = [[a, b] for a, b in zip(REFERENCES, REFERENCES[1:] + REFERENCES[:1])]
    want = peer(folder, CANDIDATES, references, 2, False)
    got = bertscore(CANDIDATES, references, encoder, layer=2)
    np.testing.assert_allclose(stacked(got), want, atol=1e-5)
    assert (got.f1 >= bertscore(CANDIDATES, REFERENCES, encoder, layer=2).f1 - 1e-7).all()


def test_rescaling_puts_the_baseline_to_zero(encoder: TextEncoder) -> None:
    raw = bertscore(CANDIDATES, REFERENCES, encoder)
    baseline = (0.5, 0.25, 0.1)
    rescaled = bertscore(CANDIDATES, REFERENCES, encoder, baseline=baseline)
    for name, floor in zip(("precision", "recall", "f1"), baseline):
        np.testing.assert_allclose(getattr(rescaled, name), (getattr(raw, name) - floor) / (1 - floor))
    assert "rescaled" in rescaled.configuration


def test_known_values_and_what_is_printed(encoder: TextEncoder) -> None:
    same = bertscore(["memory cells"], ["  memory   cells "], encoder, layer=2)
    np.testing.assert_allclose(stacked(same), 1, atol=1e-6)
    assert bertscore([""], ["blood"], encoder).mean == 0
    assert "tiny-bert_L2_no-idf_raw" in same.configuration
    assert same.configuration in str(same)
    assert "n 1" in str(same)
    assert "Llast_idf" in bertscore(["a"] * 2, ["a", "the"], encoder, idf=True).configuration


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a"], ["a", "b"], "1 texts and references 2"),
        (["a"], [[]], "candidate 0 has no reference"),
        ([], [], "0 texts"),
    ],
)
def test_bad_texts_say_what_is_wrong(encoder: TextEncoder, candidates: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bertscore(candidates, references, encoder)
