"""Examples of tasks as text."""

from collections.abc import Sequence

import numpy as np

from c2s_jax.data.requests import Draft
from c2s_jax.data.task_stream import TaskStream
from c2s_jax.tasks import GeneSlot, render
from c2s_jax.tasks.rendering import MULTI_CELL, SERIES, Segment


def sample_prompts(stream: TaskStream, names: Sequence[str], n: int) -> list[tuple[str, str]]:
    """The first examples of a task, prompt and response, without the sentence's closing token.

    Parameters
    ----------
    stream
        The task; its settings say how many genes and cells are shown.
    names
        Gene names of the corpus, by id.
    n
        How many.
    """
    draw = stream.draw(np.arange(n))
    block = stream.context.source.take(draw.lists)
    most = np.minimum(np.diff(block.indptr), draw.most)
    lists = [[names[g] for g in block.genes[a : a + k]] for a, k in zip(block.indptr, most)]
    return [_example(draw.draft, i, lists) for i in range(n)]


def _example(draft: Draft, i: int, lists: list[list[str]]) -> tuple[str, str]:
    own = lists[draft.indptr[i] : draft.indptr[i + 1]]
    cells = int(draft.cells[i])
    template = draft.templates[draft.template[i]]
    values = {"num_genes": str(max(map(len, own[:cells])))}
    for name, texts in draft.texts.items():
        if texts.indptr is None:
            values[name] = texts.value(int(texts.codes[i]))
        else:
            codes = texts.codes[texts.indptr[i] : texts.indptr[i + 1]].tolist()
            values[name] = SERIES[name].join(texts.value(code) for code in codes)
    prompt, response = render(template, values, cells)
    return _text(prompt, own), _text(response, own).removeprefix(" ")


def _text(segments: Sequence[Segment], lists: list[list[str]]) -> str:
    return "".join(s if isinstance(s, str) else _genes(s, lists) for s in segments)


def _genes(slot: GeneSlot, lists: list[list[str]]) -> str:
    place = {"cell_sentence": 0, "other_cell_sentence": 1, MULTI_CELL: slot.cell}.get(slot.name, len(lists) - 1)
    return " " * (slot.leading == "space") + " ".join(lists[place]) + "." * (slot.trailing == "period")
