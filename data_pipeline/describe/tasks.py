"""Which tasks a corpus supports, what their examples look like, and how long they are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.data.augment import Augmentation
from c2s_jax.data.contexts import Known, MissingData
from c2s_jax.data.corpus import Corpus
from c2s_jax.data.formatting import Formatter
from c2s_jax.data.settings import MixtureTask
from c2s_jax.data.task_stream import TaskStream
from c2s_jax.data.writer import Writer
from c2s_jax.report import Table
from c2s_jax.tasks import TASKS
from c2s_jax.text import GeneTokenTable, Tokenizer
from data_pipeline.describe.counts import spread
from data_pipeline.describe.prompts import sample_prompts

SECTION = "Tasks"
SHOWN_GENES, SHOWN_CELLS = 8, 3
CONTEXT = 8192  # of the released models
_MEASURED = 200
_NO_LIMIT = 1 << 40

Supported = Mapping[str, Mapping[str, TaskStream | str]]
"""Split → task → its examples, or why there are none."""


def supported_tasks(corpus: Corpus) -> Supported:
    """Try every task on every split."""
    found = {}
    for split in corpus.splits:
        known = Known(corpus, split)
        found[split] = {task: _stream(MixtureTask(task), known) for task in TASKS}
    return found


def sample_settings(task: str) -> MixtureTask:
    """Settings of a task with few genes and cells, to be looked at."""
    cells = min(SHOWN_CELLS, TASKS[task].cells[1])
    cells = cells if cells > 1 else 0  # 0: as the task needs
    return MixtureTask(task, min_genes=SHOWN_GENES, max_genes=SHOWN_GENES, min_cells=cells, max_cells=cells)


def task_tables(supported: Supported) -> list[Table]:
    """Examples an epoch of every task and split; and what those without any lack."""
    counts: list[list[Any]] = []
    lacking: list[list[Any]] = []
    for task in TASKS:
        streams = [tried[task] for tried in supported.values()]
        counts.append([task, *(0 if isinstance(stream, str) else len(stream) for stream in streams)])
        reasons = [f"{split}: {tried[task]}" for split, tried in supported.items() if isinstance(tried[task], str)]
        if len(reasons) == len(streams):
            lacking.append([task, str(streams[0])])
        elif reasons:
            lacking.append([task, "\n".join(reasons)])
    caption = "Cells, gene sets or questions that a task can be about: its examples an epoch. A mixture may hold any."
    tables = [Table("Examples of each task", caption, ["", *supported], counts, section=SECTION)]
    if lacking:
        tables.append(Table("What tasks lack", "", ["", "Lacks"], lacking, section=SECTION))
    return tables


def prompt_table(corpus: Corpus, supported: Supported, n: int) -> Table:
    """Sample examples of each task of the first split, with short sentences."""
    rows: list[list[Any]] = []
    split = corpus.splits[0]
    known = Known(corpus, split)
    for number, (task, tried) in enumerate(supported[split].items()):
        if isinstance(tried, str):
            continue
        stream = TaskStream(sample_settings(task), known, number=number, seed=0)
        rows += [[task, *texts] for texts in sample_prompts(stream, corpus.genes.names, n)]
    caption = (
        f"Of the {split} split, as a model reads them; only that sentences are cut to {SHOWN_GENES} genes and samples "
        f"to {SHOWN_CELLS} cells here."
    )
    return Table("Sample prompts", caption, ["", "Prompt", "Response"], rows, section=SECTION)


def token_lengths(corpus: Corpus, supported: Supported, tokenizer: Tokenizer) -> dict[str, NDArray[np.int64]]:
    """Tokens of some examples of each task of the first split with whole sentences: prompt and all, int64 [N, 2]."""
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    lengths = {}
    for task, stream in supported[corpus.splits[0]].items():
        if isinstance(stream, str):
            continue
        writer = Writer(stream, formatter, seq_len=_NO_LIMIT, augmentation=Augmentation())
        written = writer.write(np.arange(min(_MEASURED, len(stream)))).examples
        example = np.repeat(np.arange(len(written.lengths)), written.lengths)
        asked = np.bincount(example[~written.is_response], minlength=len(written.lengths))
        lengths[task] = np.stack([asked, written.lengths], axis=1)
    return lengths


def length_table(lengths: Mapping[str, NDArray[np.int64]]) -> Table:
    """Tokens of examples of each task."""
    rows: list[list[Any]] = []
    for task, (asked, both) in ((task, n.T) for task, n in lengths.items()):
        spreads = [spread(n) for n in (asked, both - asked, both)]
        rows.append([task, len(both), *spreads, int(both.max()), f"{np.mean(both > CONTEXT):.0%}"])
    caption = (
        "With whole sentences: median, and the middle 90 %. The last column is the share beyond the context of the "
        "released models; a stream cuts sentences so that an example fits into data.seq_len."
    )
    header = ["", "Examples", "Prompt", "Response", "Both", "Most", f"> {CONTEXT:,}"]
    return Table("Tokens an example", caption, header, rows, section=SECTION)


def _stream(settings: MixtureTask, known: Known) -> TaskStream | str:
    try:
        return TaskStream(settings, known, number=0, seed=0)
    except MissingData as error:
        reason = str(error).removeprefix(f"mixture, {settings.task}: ")
        return reason.removesuffix(", or drop the task")
