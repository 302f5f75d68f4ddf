"""From data sets to a corpus: read, split, rank, fit, write, one data set at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from c2s_jax.cells import Expression, GeneVocabulary, Ranked, fit_rank_expression
from c2s_jax.cells.expression import expression_matrix
from c2s_jax.data import corpus_format as fmt
from data_pipeline import writer
from data_pipeline.records import Block
from data_pipeline.sources import Source, check_fields
from data_pipeline.split import assign_splits

_BLOCK_CELLS = 4096
_FIT_CELLS = 20_000
_VERSIONED = ("c2s_jax", "anndata", "array_record", "numpy", "scipy", "tensorflow-datasets")


@dataclass(frozen=True)
class _Options:
    split: tuple[float, ...]
    stratify: str | None
    seed: int
    top_k: int | None
    ties: Any


def build_corpus(
    sources: ad.AnnData | Source | str | Path | Iterable[ad.AnnData | Source | str | Path],
    output: str | Path,
    *,
    name: str | None = None,
    organism: str = "",
    obs_columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    split: Sequence[float] = (0.7, 0.1, 0.2),
    stratify: str | None = "cell_type",
    seed: int = 0,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_column: str | None = None,
    scale: str = "auto",
    target_sum: float | None = None,
    duplicates: str = "error",
    empty_cells: str = "drop",
    top_k: int | None = None,
    ties: str = "hash",
    shard_bytes: int = writer.SHARD_BYTES,
    progress: bool = False,
) -> Path:
    """Build a corpus.

    Parameters
    ----------
    sources : AnnData, path of an ``.h5ad`` file, `Source`, or several of them
        What is not a `Source` is read as the keyword arguments say.
    output : path-like
        Directory to create.
    name, organism, obs_columns, constants
        See `Source`. Without `name`, data sets are named after their files.
    split : three floats
        Shares of train, validation and test, within every data set.
    stratify : str or None
        Field whose values are spread evenly over the splits.
    seed : int
        Of the split and of ties in ranking.
    layer, use_raw, gene_column, scale, target_sum, duplicates, empty_cells
        See `c2s_jax.cells.expression_matrix`.
    top_k : int, optional
        Store only the first genes of each cell.
    ties : "hash" or "cell2sentence"
        See `c2s_jax.cells.rank_cells`.
    shard_bytes : int
        Approximate size of a shard.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    CorpusExistsError
        If `output` exists.
    CorpusWriteError
        If a file cannot be written, for instance because the disk is full.
    ValueError, KeyError, FileNotFoundError
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
    options = _Options(tuple(split), stratify, seed, top_k, ties)
    _check(resolved, options)
    return _build(resolved, Path(output), options, shard_bytes, progress)


def _name(source: ad.AnnData | str | Path, name: str | None, i: int, n: int) -> str:
    if not isinstance(source, ad.AnnData) and (name is None or n > 1):
        return Path(source).stem
    base = name or "dataset"
    return base if n == 1 else f"{base}_{i}"


def _check(sources: Sequence[Source], options: _Options) -> None:
    if not sources:
        raise ValueError("no input: give at least one AnnData or .h5ad file")
    if len(options.split) != len(fmt.SPLITS):
        raise ValueError(f"split={options.split}: expected {len(fmt.SPLITS)} shares ({', '.join(fmt.SPLITS)})")
    if options.stratify is not None:
        check_fields([options.stratify])
        for source in sources:
            if options.stratify not in {*source.obs_columns, *source.constants, "organism"}:
                raise ValueError(
                    f"{source.name}: cannot stratify by {options.stratify!r}, no column was given for it "
                    "(name one with --label_column or --columns, or use --stratify='')"
                )


def _build(sources: Sequence[Source], output: Path, options: _Options, shard_bytes: int, progress: bool) -> Path:
    genes: dict[str, int] = {}
    groups: dict[tuple, int] = {}
    datasets: list[dict[str, Any]] = []
    counts = [source.n_cells() for source in sources]
    total = None if None in counts else sum(n for n in counts if n)
    with (
        writer.CorpusWriter(output, shard_bytes=shard_bytes) as corpus,
        tqdm(total=total, unit="cell", unit_scale=True, disable=not progress, desc="corpus") as bar,
    ):
        for number, source in enumerate(sources):
            with _naming(source):
                bar.set_description(source.name)
                adata = source.read()
                datasets.append(_add(corpus, adata, source, number, genes, groups, options, bar))
        names = ", ".join(d["name"] for d in datasets[:5]) + (", …" if len(datasets) > 5 else "")
        description = f"{len(datasets)} single-cell data sets as cell sentences: {names}"
        corpus.finish(GeneVocabulary(list(genes)), datasets, description)
    return output


def _add(
    corpus: writer.CorpusWriter,
    adata: ad.AnnData,
    source: Source,
    number: int,
    genes: dict[str, int],
    groups: dict[tuple, int],
    options: _Options,
    bar: tqdm,
) -> dict[str, Any]:
    """Write one data set; return its line of ``datasets.jsonl``."""
    source.fields(adata, np.zeros(0, dtype=np.int64))  # a missing column is found before the long work
    expression = expression_matrix(adata, **source.expression)
    fields = source.fields(adata, expression.rows)
    coordinates = source.coordinates(adata, expression.rows)
    labels = None if options.stratify is None else fields.get(options.stratify)
    cell_ids = expression.cell_ids.tolist()
    splits = assign_splits(cell_ids, labels, options.split, options.seed)
    ranked = expression.rank(ties=options.ties, seed=options.seed)
    fit = fit_rank_expression(_take(ranked, np.flatnonzero(splits == 0)), max_cells=_FIT_CELLS, seed=options.seed)
    stored = ranked if options.top_k is None else ranked.top(options.top_k)
    translate = np.array([genes.setdefault(g, len(genes)) for g in expression.genes.names], dtype=np.int32)
    group = _groups(fields, number, len(cell_ids), groups)
    for split, rows in _blocks(splits):
        part = _take(stored, rows)
        block = Block(
            dataset=number,
            cell_ids=expression.cell_ids[rows].tolist(),
            indptr=part.indptr,
            genes=translate[part.genes],
            expression=part.values.astype(np.float16),
            fields={field: values[rows] for field, values in fields.items()},
            coordinates=None if coordinates is None else coordinates[rows],
        )
        corpus.write(fmt.SPLITS[split], block, group[rows])
        bar.update(len(rows))
    bar.update(adata.n_obs - len(cell_ids))
    return {
        "name": source.name,
        "organism": source.organism,
        "abstracts": list(source.abstracts),
        "rank_expression": fit.to_dict(),
        "counts": _counts(splits, expression),
        "provenance": _provenance(source, expression, options),
    }


def _blocks(splits: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for split in range(len(fmt.SPLITS)):
        rows = np.flatnonzero(splits == split)
        for start in range(0, len(rows), _BLOCK_CELLS):
            yield split, rows[start : start + _BLOCK_CELLS]


def _take(ranked: Ranked, rows: NDArray[np.int64]) -> Ranked:
    lengths = np.diff(ranked.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    entries = np.repeat(ranked.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
    return Ranked(indptr, ranked.genes[entries], ranked.values[entries])


def _groups(fields: Mapping[str, NDArray], number: int, n_cells: int, known: dict[tuple, int]) -> NDArray[np.int32]:
    """Group id of each cell; cells of one data set that agree in the group fields share one."""
    combined = np.zeros(n_cells, dtype=np.int64)
    keys: list[tuple] = [()]
    for field in fmt.GROUP_FIELDS:
        values = fields.get(field, np.full(n_cells, "", dtype=object))
        names, codes = np.unique(values.astype(str), return_inverse=True)
        pairs, combined = np.unique(combined * len(names) + codes, return_inverse=True)
        keys = [(*keys[pair // len(names)], str(names[pair % len(names)])) for pair in pairs.tolist()]
    ids = [known.setdefault((number, *key), len(known)) for key in keys]
    return np.asarray(ids, dtype=np.int32)[combined]


def _counts(splits: NDArray[np.int8], expression: Expression) -> dict[str, int]:
    per_split = {name: int((splits == i).sum()) for i, name in enumerate(fmt.SPLITS)}
    n_cells, n_genes = expression.matrix.shape
    return {"cells": n_cells, "genes": n_genes, "expressed": int(expression.matrix.nnz), **per_split}


def _provenance(source: Source, expression: Expression, options: _Options) -> dict[str, Any]:
    return {
        "file": source.file,
        "obs_columns": dict(source.obs_columns),
        "expression": {key: value for key, value in source.expression.items() if value is not None},
        "normalisation": {"scale": expression.scale, "target_sum": expression.target_sum},
        "report": list(expression.report),
        "split": dict(zip(fmt.SPLITS, options.split, strict=True)),
        "stratify": options.stratify,
        "seed": options.seed,
        "ties": options.ties,
        "top_k": options.top_k,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    from c2s_jax import __version__

    found = {"c2s_jax": __version__}
    for package in _VERSIONED[1:]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Put the name of the source before what is wrong with it."""
    try:
        yield
    except (ValueError, KeyError) as error:
        text = error.args[0] if error.args else error
        raise type(error)(f"{source.file or source.name}: {text}") from error
