"""From data sets to a corpus: describe, measure, plan, write."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import anndata as ad
from tqdm import tqdm

from c2s_jax.data import corpus_format as fmt
from data_pipeline import jobs, knowledge, pseudobulk
from data_pipeline.arrangement import arrange
from data_pipeline.finish import write_rest
from data_pipeline.jobs import BuildOptions, Job, Unit, unit_of_dataset
from data_pipeline.knowledge import GeneSetLike, InteractionLike
from data_pipeline.plan import Plan, make_plan
from data_pipeline.sources import Source
from data_pipeline.staging import Workplace
from data_pipeline.workers import Processes, Runner, Serial


def build_corpus(
    sources: ad.AnnData | Source | str | Path | Iterable[ad.AnnData | Source | str | Path],
    output: str | Path,
    *,
    name: str | None = None,
    organism: str = "",
    obs_columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    split: Sequence[float] = (0.7, 0.1, 0.2),
    split_by: str = "cell",
    tile_side: float | None = None,
    held_out: Sequence[Mapping[str, Sequence[str]]] = (),
    stratify: str | None = "cell_type",
    seed: int = 0,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_column: str | None = None,
    scale: str = "auto",
    target_sum: float | None = None,
    duplicates: str = "error",
    empty_cells: str = "drop",
    duplicates_cells: str = "report",
    top_k: int | None = None,
    ties: str = "hash",
    gene_sets: Iterable[GeneSetLike] = (),
    interactions: Iterable[InteractionLike] = (),
    unit_cells: int = jobs.UNIT_CELLS,
    workers: int = 1,
    runner: str | None = None,
    beam_options: Sequence[str] = (),
    progress: bool = False,
) -> Path:
    """Build a corpus.

    Data sets are read twice, block by block, so memory does not grow with their number of cells. After an interruption
    the same call goes on where it was; the result is the same, byte by byte, however it is run.

    Parameters
    ----------
    sources : AnnData, path of cells, `Source`, or several of them
        What is not a `Source` is read as the keyword arguments say.
    output : path-like
        Directory to create.
    name, organism, obs_columns, constants
        See `Source`. Without `name`, data sets are named after their files.
    split : three floats
        Shares of train, validation and test.
    split_by : str
        "cell": shares hold within every data set. Or what stays together in one split: "dataset", "tile" (squares in
        space), or a field such as "donor" or "perturbation".
    tile_side : float, optional
        Side of a tile, in the unit of the coordinates.
    held_out : sequence of {field: values}
        Cells that have one of the values in every field of a condition are test cells, whatever their share; their
        copies are, too. The others are split as they would be without it.
    stratify : str or None
        Field whose values are spread evenly over the splits, as far as groups allow.
    seed : int
        Of the split and of ties in ranking.
    layer, use_raw, gene_column, scale, target_sum, duplicates, empty_cells
        See `c2s_jax.cells.expression_matrix`.
    duplicates_cells : "report", "drop" or "error"
        Cells with the barcode and the counts of another, in any data set. Those that stay share a split.
    top_k : int, optional
        Store only the first genes of each cell.
    ties : "hash" or "cell2sentence"
        See `c2s_jax.cells.rank_cells`.
    gene_sets, interactions
        Stored as far as the corpus has their genes; see `data_pipeline.knowledge`.
    unit_cells : int
        Cells of a data set that are written together: a shard holds those of them that are in one split.
    workers : int
        Processes. (A script that asks for several must begin its work under ``if __name__ == "__main__":``.)
    runner, beam_options
        Do the work in Apache Beam pipelines instead; see `data_pipeline.beam.Beam`.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    CorpusExistsError
        If `output` exists, or another process is building it.
    CorpusWriteError
        If a file cannot be written, for instance because the disk is full.
    ValueError, FileNotFoundError
        If a source cannot be used; the message names it. In every case `output` does not come into being.
    """
    expression = {
        "layer": layer,
        "use_raw": use_raw,
        "gene_column": gene_column,
        "scale": scale,
        "target_sum": target_sum,
        "duplicates": duplicates,
        "empty_cells": empty_cells,
    }
    given = [sources] if isinstance(sources, ad.AnnData | Source | str | Path) else list(sources)
    resolved = []
    for i, source in enumerate(given):
        if not isinstance(source, Source):
            label = _name(source, name, i, len(given))
            source = Source(source, label, organism, obs_columns or {}, constants or {}, expression=expression)
        resolved.append(source)
    options = BuildOptions(
        tuple(split), split_by, tile_side, stratify, seed, top_k, ties, duplicates_cells, unit_cells, tuple(held_out)
    )
    chosen = tuple(resolved)
    jobs.check(chosen, options)
    target = Path(output).absolute()
    resumable = jobs.is_resumable(chosen)
    with Workplace(target, jobs.fingerprint(chosen, options), resumable=resumable) as place:
        job = pseudobulk.with_sums(Job(chosen, options, place.staging))
        with _runner(job, workers, runner, beam_options) as run:
            plan = _plan(job, run, progress)
            with _bar("writing", plan.units, progress) as bar:
                run.run("write", plan.units, bar.update)
            run.run("fit", [unit_of_dataset(number) for number in range(len(job.sources))], lambda _: None)
        write_rest(job, plan, *_lists(job, plan, gene_sets, interactions))
        place.publish()
    return Path(output)


def _name(source: ad.AnnData | str | Path, name: str | None, i: int, n: int) -> str:
    if not isinstance(source, ad.AnnData) and (name is None or n > 1):
        return Path(source).stem
    base = name or "dataset"
    return base if n == 1 else f"{base}_{i}"


def _runner(job: Job, workers: int, runner: str | None, beam_options: Sequence[str]) -> Runner:
    if workers < 1:
        raise ValueError(f"workers must be at least 1, it is {workers}")
    if runner is None:
        return Serial(job) if workers == 1 else Processes(job, workers)
    try:
        from data_pipeline.beam import Beam
    except ImportError as error:
        raise ValueError(f"runner={runner!r} needs Apache Beam: pip install 'c2s_jax[beam]' ({error})") from error
    return Beam(job, runner, beam_options)


def _plan(job: Job, run: Runner, progress: bool) -> Plan:
    own = [number for number in range(len(job.sources)) if number not in job.sums_of]
    arrangement = arrange(job, _measured(job, run, own, progress))
    if job.sums_of:
        units = pseudobulk.plan_sums(job, arrangement)
        with _bar("summing", units, progress) as bar:
            run.run("sum", units, bar.update)
        pseudobulk.gather_sums(job, arrangement)
        arrangement = pseudobulk.arrange_sums(job, arrangement, _measured(job, run, list(job.sums_of), progress))
    return make_plan(arrangement)


def _measured(job: Job, run: Runner, numbers: Sequence[int], progress: bool) -> list[list[Unit]]:
    """Units of some data sets, once they are described and measured."""
    described = [unit_of_dataset(number) for number in numbers]
    run.run("describe", described, lambda _: None)
    cells = [job.staging.report(unit.step("describe"))["cells"] for unit in described]
    units = [jobs.units_of(number, n, job.options.unit_cells) for number, n in zip(numbers, cells, strict=True)]
    flat = [unit for its_units in units for unit in its_units]
    with _bar("checking", flat, progress) as bar:
        run.run("measure", flat, bar.update)
    return units


def _bar(what: str, units: Sequence[Unit], progress: bool) -> "tqdm[None]":
    return tqdm(total=sum(map(len, units)), unit="cell", unit_scale=True, disable=not progress, desc=what)


def _lists(
    job: Job, plan: Plan, gene_sets: Iterable[GeneSetLike], interactions: Iterable[InteractionLike]
) -> tuple[dict[str, knowledge.Lines], list[str]]:
    shares, seed = job.options.split, job.options.seed
    sets, said = knowledge.gene_set_lines(gene_sets, plan.genes, shares, seed)
    pairs, more = knowledge.interaction_lines(interactions, plan.genes)
    questions = knowledge.question_lines([source.questions for source in job.sources], shares, seed, _whole(plan))
    lists = {fmt.GENE_SETS_FILE: sets, fmt.INTERACTIONS_FILE: pairs, fmt.QUESTIONS_FILE: questions}
    return lists, said + more


def _whole(plan: Plan) -> dict[int, str]:
    """Split of each data set whose cells are all in one."""
    found = {}
    for number, line in enumerate(plan.datasets):
        there = [name for name in fmt.SPLITS if line["counts"][name]]
        if len(there) == 1:
            found[number] = there[0]
    return found
