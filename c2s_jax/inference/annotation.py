"""Cell types of cells: the most probable of given labels, or whatever the model writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax

from c2s_jax.cells.ontology import CellOntology
from c2s_jax.generation import Sampling
from c2s_jax.inference.inquiry import Inquiry, response_texts, warn_untrained
from c2s_jax.inference.language_model import LanguageModel
from c2s_jax.inference.provenance import record
from c2s_jax.inference.streaming import over_cells
from c2s_jax.tasks import TASKS

TASK = "cell_type_annotation"
FREE_TOKENS = 48  # for an answer in the model's own words


def annotate(
    model: LanguageModel,
    adata: ad.AnnData,
    labels: Sequence[str] | None,
    *,
    free_text: bool,
    n_prompts: int,
    temperature: float,
    ontology: CellOntology | str | Path | None,
    key_added: str,
    resume: Any,
    progress: bool,
    **reading: Any,
) -> None:
    """See ``Model.annotate``."""
    terms = CellOntology.load(ontology) if isinstance(ontology, str | Path) else ontology
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature={temperature} must be a positive number; see calibrate")
    chosen = None if free_text else candidates(model, labels)
    warn_untrained(model, TASK)
    if chosen is None:
        if temperature != 1:
            raise ValueError("temperature calibrates probabilities of labels; answers in free text have none")
        _free(model, adata, n_prompts, key_added, resume, progress, reading)
    else:
        _closed(model, adata, chosen, n_prompts, temperature, key_added, resume, progress, reading)
    if terms is not None:
        _add_terms(adata, key_added, terms)


def _add_terms(adata: ad.AnnData, key_added: str, terms: CellOntology) -> None:
    """The ontology's ids and labels of the answers, beside them; missing where no term fits."""
    answers = adata.obs[key_added]
    found = {answer: terms.match(str(answer)) for answer in answers.cat.categories}
    for name, value in (("ontology_term_id", "id"), ("ontology_term", "label")):
        column = [getattr(found.get(answer), value, None) for answer in answers]
        adata.obs[f"{key_added}_{name}"] = pd.Categorical(column)


def candidates(model: LanguageModel, labels: Sequence[str] | None) -> list[str] | None:
    """Candidates without repetition; None where nothing gives any."""
    if isinstance(labels, str):
        raise TypeError(f"labels must be a list of cell types, not the text {labels!r}")
    if labels is None:
        known = model.card.values.get("cell_type") if model.card else None
        return list(known) if known else None
    found = list(dict.fromkeys(str(label).strip() for label in labels))
    if not found or "" in found:
        raise ValueError("labels must name at least one cell type, and none may be empty")
    return found


class Scored(NamedTuple):
    """Candidates' scores of C cells; NaN for cells without a gene of the model.

    Attributes
    ----------
    logprobs
        float32 [C, L], normalised over the candidates.
    mass
        float32 [C], probability that the model gives to the candidates together.
    inquiry, settings
        What was asked, and what else the scores depend on.
    """

    logprobs: NDArray
    mass: NDArray
    inquiry: Inquiry
    settings: dict[str, Any]


def score(
    model: LanguageModel,
    adata: ad.AnnData,
    labels: list[str],
    n_prompts: int,
    resume: Any,
    progress: bool,
    reading: dict[str, Any],
) -> Scored:
    """Score all candidates for all cells."""
    room = max(map(len, model.answer_tokens(labels))) + 4
    inquiry = Inquiry(model, adata, TASK, room=room, n_prompts=n_prompts, **reading)
    answers = [model.answer_tokens(response_texts(template, labels)) for template in inquiry.templates]

    def compute(rows: NDArray, asked: list[list[NDArray]], advance: Callable[[int], None]) -> dict[str, NDArray]:
        scores = [
            model.scorer(model.params, prompts, candidates, progress=advance).logprobs
            for prompts, candidates in zip(asked, answers)
        ]
        # each wording's distribution over the candidates, then their mean
        each = [log_softmax(x.astype(np.float64), axis=1) for x in scores]
        mixed = np.logaddexp.reduce(each) - np.log(len(each))
        return {"logprobs": mixed.astype(np.float32), "mass": np.mean([_mass(x) for x in scores], axis=0)}

    settings = {"labels": labels, "n_prompts": len(answers)}
    logprobs = np.full((adata.n_obs, len(labels)), np.nan, np.float32)
    mass = np.full(adata.n_obs, np.nan, np.float32)
    for block, rows, found in over_cells(
        inquiry, compute, what="annotate", settings=settings, resume=resume, progress=progress
    ):
        if len(rows):
            logprobs[block.start + rows], mass[block.start + rows] = found["logprobs"], found["mass"]
    return Scored(logprobs, mass, inquiry, settings)


def _closed(
    model: LanguageModel,
    adata: ad.AnnData,
    labels: list[str],
    n_prompts: int,
    temperature: float,
    key_added: str,
    resume: Any,
    progress: bool,
    reading: dict[str, Any],
) -> None:
    logprobs, mass, inquiry, settings = score(model, adata, labels, n_prompts, resume, progress, reading)
    if temperature != 1:
        logprobs = log_softmax(logprobs.astype(np.float64) / temperature, axis=1).astype(np.float32)
    there = ~np.isnan(mass)
    best = np.where(there, np.argmax(np.nan_to_num(logprobs, nan=-np.inf), axis=1), -1)
    adata.obs[key_added] = pd.Categorical.from_codes(best, categories=labels)
    adata.obs[f"{key_added}_logprob"] = np.where(there, logprobs[np.arange(adata.n_obs), best], np.nan)
    adata.obs[f"{key_added}_mass"] = mass
    adata.obsm[f"{key_added}_probabilities"] = np.exp(logprobs)
    settings |= {"temperature": temperature}
    _record(inquiry, adata, settings | reading, labels=np.array(labels, dtype=object), key_added=key_added)


def _mass(scores: NDArray) -> NDArray[np.float32]:
    """Probability that the model gives to the candidates together."""
    return np.minimum(np.exp(np.logaddexp.reduce(scores.astype(np.float64), axis=1)), 1.0).astype(np.float32)


def _free(
    model: LanguageModel,
    adata: ad.AnnData,
    n_prompts: int,
    key_added: str,
    resume: Any,
    progress: bool,
    reading: dict[str, Any],
) -> None:
    if n_prompts != 1:
        raise ValueError("n_prompts is for a list of labels; answers in free text are asked once")
    inquiry = Inquiry(model, adata, TASK, room=FREE_TOKENS, **reading)

    def compute(rows: NDArray, asked: list[list[NDArray]], advance: Callable[[int], None]) -> dict[str, NDArray]:
        samples = model.sample(asked[0], FREE_TOKENS, Sampling(0.0), progress=advance)
        texts = [TASKS[TASK].parse(text) for text in samples.texts(model.tokenizer.decode)]
        return {"answers": np.array(texts, dtype=np.str_), "logprobs": samples.logprobs.sum(axis=1)}

    answers = np.full(adata.n_obs, "", dtype=object)
    logprobs = np.full(adata.n_obs, np.nan, np.float32)
    for block, rows, found in over_cells(
        inquiry, compute, what="annotate", settings={"free_text": True}, resume=resume, progress=progress
    ):
        if len(rows):
            answers[block.start + rows], logprobs[block.start + rows] = found["answers"], found["logprobs"]
    adata.obs[key_added] = pd.Categorical([answer or None for answer in answers])
    adata.obs[f"{key_added}_logprob"] = logprobs
    _record(inquiry, adata, {"free_text": True} | reading, key_added=key_added)


def _record(inquiry: Inquiry, adata: ad.AnnData, settings: dict[str, Any], **results: Any) -> None:
    prompts = [template.model_input for template in inquiry.templates]
    record(adata, "annotate", inquiry.model, prompts=prompts, settings=settings, report=inquiry.warn(), **results)
