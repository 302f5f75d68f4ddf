"""The files beside the shards, and the manifest, which is written last."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2s_jax.cells.vocabulary import GeneVocabulary
from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.ragged import offsets
from data_pipeline import knowledge, records, writer
from data_pipeline.jobs import Job
from data_pipeline.lines import dataset_lines
from data_pipeline.plan import Plan, SplitPlan
from data_pipeline.writer import FileFacts


def write_rest(job: Job, plan: Plan, lists: Mapping[str, knowledge.Lines], report: Sequence[str]) -> None:
    """Write everything but the shards, which are there.

    Parameters
    ----------
    job : Job
    plan : Plan
    lists : dict of file name to lines
        Questions, gene sets, interactions; files that would be empty are not written.
    report : list of str
        What there is to say about the corpus as a whole.
    """
    folder, output = job.staging.corpus, job.staging.output
    shards = {name: _shards(job, name, split) for name, split in zip(fmt.SPLITS, plan.splits, strict=True)}
    sizes = {name: [(f.records, f.record_bytes) for f in found.values()] for name, found in shards.items()}
    files = {name: facts for found in shards.values() for name, facts in found.items()}
    _remove_others(folder, set(files))
    write = partial(_write, files, folder, output)
    write(fmt.GENES_FILE, GeneVocabulary(list(plan.genes)).save)
    for name, lines in {fmt.DATASETS_FILE: dataset_lines(job, plan.datasets), **lists}.items():
        if lines:
            write(name, partial(knowledge.write_lines, lines=lines))
    for name, split in zip(fmt.SPLITS, plan.splits, strict=True):
        write(fmt.groups_name(name), partial(_save, array=np.concatenate([np.zeros(0, np.int32), *split.groups])))
        write(fmt.fields_name(name), partial(records.write_compressed, arrays=split.columns.arrays()))
        if any(dataset["radius"] is not None for dataset in plan.datasets):
            write(fmt.neighbours_name(name), partial(records.write_compressed, arrays=_neighbours(split)))
    with writer.naming_errors(folder / fmt.INFO_FILE, output):
        records.write_tfds_metadata(folder, output, sizes, _description(plan.datasets))
        for path in sorted(p for p in folder.iterdir() if p.name not in files):
            writer.sync(path)
            files[path.name] = FileFacts.of(path)
    manifest = {
        "format": fmt.DATASET_NAME,
        "version": fmt.FORMAT_VERSION,
        "records": {name: sum(n for n, _ in found) for name, found in sizes.items()},
        "shards": {name: [n for n, _ in found] for name, found in sizes.items()},
        "report": [*plan.report, *report],
        "files": {name: {"bytes": f.bytes, "crc32": f.crc32} for name, f in sorted(files.items())},
    }
    writer.write_json(folder / fmt.MANIFEST_FILE, output, manifest)


def _write(files: dict[str, FileFacts], folder: Path, output: Path, name: str, write: Any) -> None:
    files[name] = writer.write_file(folder / name, output, write)


def _save(path: Path, array: NDArray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _shards(job: Job, name: str, split: SplitPlan) -> dict[str, FileFacts]:
    """Facts of a split's shards, in order."""
    if not split.shards:
        path = job.staging.corpus / fmt.shard_name(name, 0, 1)  # an empty split still has one (empty) shard
        return {path.name: writer.ShardWriter(path, job.staging.output).close()}
    found = {}
    for unit, shard in split.shards:
        files = job.staging.report(unit.step("write"))["files"]
        found[shard] = FileFacts(**files[f"{job.staging.corpus.name}/{shard}"])
    return found


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove what an interrupted run left among the files of the corpus."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _neighbours(split: SplitPlan) -> Iterator[tuple[str, NDArray]]:
    yield "indptr", offsets(np.concatenate([np.zeros(0, np.int64), *split.degrees]))
    yield "indices", np.concatenate([np.zeros(0, np.int32), *split.neighbours])


def _description(datasets: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(d["name"] for d in datasets[:5]) + (", …" if len(datasets) > 5 else "")
    return f"{len(datasets)} single-cell data sets as cell sentences: {names}"
