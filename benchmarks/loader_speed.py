"""Packed tokens a second of the training-time loader, from records on disk to batches.

    python -m benchmarks.loader_speed --tokenizer=FILE [--corpus=DIR] [--cells=20000]

Prints JSON; progress goes to standard error. Batches come from ``c2s_jax.data.batches``, as training takes them.
The process keeps to one core; seconds are processor time of all its threads, so that other programs on the machine
count less. Without a corpus, one of made-up cells
with about 1,840 expressed genes each is built (``synthetic_atlas``).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}

from benchmarks import synthetic_atlas
from benchmarks.corpus_speed import machine
from c2s_jax.data import Augmentation, Corpus, Formatter, MixtureTask, PackedRows, batches
from c2s_jax.tasks import TASKS
from c2s_jax.text import GeneTokenTable, load_tokenizer
from data_pipeline.build import build_corpus
from data_pipeline.sources import Source

SEQ_LEN, BATCH, BLOCK_ROWS = 8192, 16, 1024
ROWS_TIMED, TURNS = 128, 5
SINGLE = ("cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation")
SEVERAL = ("multi_cell_sentence_modelling", "sample_cell_type_annotation", "cell_types_conditioned_generation")


def mixtures() -> dict[str, tuple[list[MixtureTask], Augmentation]]:
    """What is measured: tasks and variation of their sentences."""
    whole = [MixtureTask(name) for name in SINGLE]
    every = [MixtureTask(name, min_genes=100, max_genes=1000) for name in TASKS]
    cut = [MixtureTask(name, min_genes=100, max_genes=1000) for name in SINGLE]
    short = [MixtureTask(name, min_genes=200, max_genes=200) for name in SINGLE]
    several = [MixtureTask(name, min_genes=100, max_genes=400) for name in SEVERAL]
    plain, varied = Augmentation(), Augmentation(shuffle_ties=True, gene_dropout=0.1)
    return {
        "every task the corpus has data for, 100 to 1,000 genes": (every, plain),
        "single-cell tasks, whole sentences": (whole, plain),
        "single-cell tasks, 100 to 1,000 genes": (cut, plain),
        "single-cell tasks, 200 genes": (short, plain),
        "multi-cell tasks, 100 to 400 genes a cell": (several, plain),
        "single- and multi-cell tasks": (cut + several, plain),
        "the same, ties shuffled, a tenth of genes left out": (cut + several, varied),
        "the same, TF-IDF order": (ordered(cut + several, "tfidf"), plain),
        "the same, expression with noise": (cut + several, Augmentation(jitter=0.1)),
        "the same, binned order": (ordered(cut + several, "binned"), plain),
    }


def ordered(tasks: list[MixtureTask], order: Any) -> list[MixtureTask]:
    """The tasks with another order of genes."""
    return [MixtureTask(**{**vars(task), "gene_order": order}) for task in tasks]


def made_up(folder: Path, cells: int) -> Path:
    """A corpus of made-up cells."""
    synthetic_atlas.write(folder / "atlas.h5ad", cells, 20_000, 30, 20, 0, None)
    source = Source(folder / "atlas.h5ad", "atlas", "human", {"cell_type": "cell_type", "donor": "donor"})
    return build_corpus([source], folder / "corpus")


def measured(rows: PackedRows) -> dict[str, Any]:
    """Tokens a processor second, and how full the rows are."""
    stream: Iterator[dict[str, Any]] = batches(rows, start_row=0, batch_size=BATCH, threads=1)
    next(stream)
    tokens, speeds, places = 0, [], 0
    for _ in range(TURNS):
        began, turn = time.process_time(), 0
        for _ in range(ROWS_TIMED // BATCH):
            segments = next(stream)["segment_ids"]
            turn += int((segments > 0).sum())
            places += segments.size
        speeds.append(turn / (time.process_time() - began))
        tokens += turn
    return {
        "tokens_per_second": {"best": round(max(speeds)), "median": round(median(speeds))},
        "fill": round(tokens / places, 4),
    }


def planned(open_rows: Callable[[int], PackedRows], examples: int = 1_000_000) -> dict[str, Any]:
    """Seconds to plan a block of so many examples: which they are, and which pack has them."""
    few = open_rows(BLOCK_ROWS)
    rows = open_rows(round(BLOCK_ROWS * examples / few.examples_per_block))
    began = time.process_time()
    rows.plan(0)
    seconds = time.process_time() - began
    return {"rows": rows.rows_per_block, "examples": rows.examples_per_block, "seconds": round(seconds, 2)}


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, help="corpus to read; made up if it is not given")
    parser.add_argument("--cells", type=int, default=20_000, help="cells of the corpus that is made up")
    parser.add_argument("--tokenizer", type=Path, required=True)
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(given.corpus or made_up(Path(folder), given.cells))
        tokenizer = load_tokenizer(given.tokenizer)
        began = time.process_time()
        formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
        found["table_seconds"] = round(time.process_time() - began, 2)
        cells = corpus.cells("train")
        found["cells"], found["genes_a_cell"] = len(cells), round(float(cells.n_genes.mean()))
        same: dict[str, Any] = {"seq_len": SEQ_LEN, "missing": "skip"}
        for name, (tasks, augmentation) in mixtures().items():
            print(name, file=sys.stderr, flush=True)
            began = time.process_time()
            rows = PackedRows(
                corpus, "train", tasks, formatter, rows_per_block=BLOCK_ROWS, augmentation=augmentation, **same
            )
            opened = time.process_time() - began
            found[name] = measured(rows) | {"seconds_to_open": round(opened, 2)}
            print(found[name], file=sys.stderr, flush=True)
        tasks, _ = mixtures()["single- and multi-cell tasks"]
        found["plan"] = planned(lambda n: PackedRows(corpus, "train", tasks, formatter, rows_per_block=n, **same))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
