"""Answers in words about several cells: questions, captions of clusters, descriptions of samples."""

from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from c2s_jax.generation import Sampling
from c2s_jax.inference.contexts import CellContext, draw_contexts
from c2s_jax.inference.inquiry import Inquiry, choose_task
from c2s_jax.inference.language_model import LanguageModel
from c2s_jax.inference.prompting import constant
from c2s_jax.inference.provenance import record
from c2s_jax.inference.streaming import Meter, cell_bar
from c2s_jax.tasks import TASKS

ASK, CAPTION, DESCRIBE = "question_answering", "cluster_captioning", "abstract_generation"


def answers(
    model: LanguageModel,
    adata: ad.AnnData,
    task: str,
    *,
    groupby: str | None,
    n_cells: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    progress: bool,
    question: str | None = None,
    **reading: Any,
) -> dict[str, str]:
    """One answer a group of cells, by its name; recorded in ``adata.uns["c2s"]``."""
    if question is not None and not question.strip():
        raise ValueError("the question is empty")
    if adata.is_view and adata.isbacked:
        raise ValueError(
            "adata is a view of cells in a file, which nothing can be written into: pass adata.to_memory()"
        )
    choose_task(model, task)
    known = frozenset(("question",)) if question is not None else frozenset()
    inquiry = Inquiry(model, adata, task, room=max_new_tokens, known=known, **reading)
    contexts = draw_contexts(adata, inquiry.reader, groupby, n_cells=n_cells, seed=seed)
    prompts = _prompts(inquiry, contexts, question)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    with cell_bar(len(contexts), task, progress) as bar:
        samples = model.sample(prompts, max_new_tokens, sampling, seed=seed, progress=Meter(bar).advance)
    texts = [TASKS[task].parse(text) for text in samples.texts(model.tokenizer.decode)]
    found = {context.group: text for context, text in zip(contexts, texts)}
    settings = dict(
        groupby=groupby, n_cells=n_cells, temperature=temperature, top_p=top_p, seed=seed, question=question
    )
    used = [inquiry.template.model_input]
    names = {ASK: "ask", CAPTION: "caption", DESCRIBE: "describe"}
    record(
        adata, names[task], model, prompts=used, settings=settings | reading, report=inquiry.warn(),
        groups=list(found), answers=list(found.values()),
        cells=[";".join(adata.obs_names[c.rows]) for c in contexts],
    )  # fmt: skip
    return found


def _prompts(inquiry: Inquiry, contexts: list[CellContext], question: str | None) -> list[NDArray[np.int32]]:
    rows = np.concatenate([c.rows for c in contexts])
    genes, indptr = inquiry.reader.take(rows)
    first = np.array([c.rows[0] for c in contexts])
    lists = np.array([len(c.rows) for c in contexts], np.int64)
    texts = {} if question is None else {"question": constant(question.strip(), len(contexts))}
    return inquiry.write(first, genes, indptr, lists=lists, texts=texts)
