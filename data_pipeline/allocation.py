"""Which split each cell of all data sets goes into."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from c2s_jax.cells.neighbourhoods import spatial_blocks
from c2s_jax.cells.ranking import mix
from c2s_jax.data import corpus_format as fmt
from data_pipeline.blocks import naming
from data_pipeline.datasets import Dataset
from data_pipeline.duplicates import Copies
from data_pipeline.jobs import BuildOptions
from data_pipeline.records import Codes
from data_pipeline.sources import Source
from data_pipeline.split import assign_cells, assign_groups, cell_hashes


class Annotated(Protocol):
    """What is asked of a data set by what does not depend on its cells' hashes."""

    @property
    def number(self) -> int: ...
    @property
    def source(self) -> Source: ...
    @property
    def kept(self) -> NDArray[np.bool_]: ...
    @property
    def coordinates(self) -> NDArray[np.float32]: ...
    @property
    def sections(self) -> Codes | None: ...
    def field(self, name: str) -> Codes: ...


def allocate(datasets: Sequence[Dataset], copies: Copies, options: BuildOptions) -> list[NDArray[np.int8]]:
    """Split of every cell of every data set; −1 for cells that are not kept. int8 [C] each.

    Copies of a cell always share its split. Cells are spread within each data set; groups (``split_by``) over all of
    them, and a group is its value: the same donor in two data sets is one donor. Cells without a value are one group a
    data set.
    """
    divide = _by_cell if options.split_by == "cell" else by_group
    splits = divide(datasets, copies, options)
    if options.held_out:
        _hold_out(datasets, splits, copies, options)
    return splits


def _hold_out(
    datasets: Sequence[Dataset], splits: Sequence[NDArray[np.int8]], copies: Copies, options: BuildOptions
) -> None:
    """Move the cells of ``options.held_out``, and their copies, into the last split, in place."""
    chosen = [np.zeros(len(dataset.kept), bool) for dataset in datasets]
    for condition in options.held_out:
        chosen = [a | b for a, b in zip(chosen, cells_of(datasets, condition), strict=True)]
    members = [classes[cells] for classes, cells in zip(copies.classes, chosen, strict=True)]
    outside = np.zeros(len(copies.keys) + 1, bool)  # the last stands for cells without copies
    outside[np.concatenate(members)] = True
    outside[-1] = False
    for its_splits, classes, cells in zip(splits, copies.classes, chosen, strict=True):
        its_splits[(cells | outside[classes]) & (its_splits >= 0)] = len(fmt.SPLITS) - 1


def cells_of(datasets: Sequence[Annotated], condition: Mapping[str, Sequence[str]]) -> list[NDArray[np.bool_]]:
    """Cells of each data set that a condition of ``held_out`` names, bool [C] each.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = [_are(dataset, condition) & dataset.kept for dataset in datasets]
    if not any(cells.any() for cells in found):
        raise ValueError(f"held_out: no cell is of the condition {_shown(condition)}; values are compared as written")
    return found


def _are(dataset: Annotated, condition: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
    """Cells that have one of the values in every field."""
    there = np.ones(len(dataset.kept), bool)
    for name, values in condition.items():
        column = dataset.field(name)
        there &= np.isin(column.values, list(values))[column.codes]
    return there


def _shown(condition: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name}: {' | '.join(values)}" for name, values in condition.items())


def _strata(dataset: Annotated, rows: NDArray[np.int64], options: BuildOptions) -> NDArray[np.int64]:
    if options.stratify is None:
        return np.zeros(len(rows), np.int64)
    return dataset.field(options.stratify).codes[rows].astype(np.int64)


def _by_cell(datasets: Sequence[Dataset], copies: Copies, options: BuildOptions) -> list[NDArray[np.int8]]:
    of_class = np.full(len(copies.keys), -1, np.int8)
    keys = mix(copies.keys + np.uint64(options.seed))
    out = []
    for dataset, classes in zip(datasets, copies.classes, strict=True):
        rows = np.flatnonzero(dataset.kept)
        strata, member = _strata(dataset, rows, options), classes[rows]
        hashes = dataset.measured().split_hashes[rows]
        single = np.flatnonzero(member < 0)
        # One cell stands for each class that no earlier data set has brought, whichever row comes first.
        shared = np.flatnonzero(member >= 0)
        shared = shared[of_class[member[shared]] < 0]
        new, place = np.unique(member[shared], return_inverse=True)
        lowest = np.full(len(new), np.iinfo(np.int64).max)
        np.minimum.at(lowest, place, strata[shared])
        found = assign_cells(
            np.concatenate([hashes[single], keys[new]]), np.concatenate([strata[single], lowest]), options.split
        )
        of_class[new] = found[len(single) :]
        splits = np.full(len(dataset.kept), -1, np.int8)
        splits[rows] = of_class[member] if len(of_class) else 0
        splits[rows[single]] = found[: len(single)]
        out.append(splits)
    return out


def by_group(datasets: Sequence[Annotated], copies: Copies, options: BuildOptions) -> list[NDArray[np.int8]]:
    """Split of every cell where groups stay together (``split_by``), as `allocate` gives it.

    Raises
    ------
    ValueError
        If there are fewer groups than splits with a share.
    """
    names, groups = _groups(datasets, options)
    classes = [found[dataset.kept] for dataset, found in zip(datasets, copies.classes, strict=True)]
    component = _joined(groups, classes, len(names), len(copies.keys))
    counts = _counts(datasets, [component[g] for g in groups], int(component.max(initial=-1)) + 1, options)
    hashes = np.full(counts.shape[0], np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(hashes, component, cell_hashes(names, options.seed))
    of_component = assign_groups(counts, hashes, options.split, options.split_by)
    out = []
    for dataset, group in zip(datasets, groups, strict=True):
        splits = np.full(len(dataset.kept), -1, np.int8)
        splits[dataset.kept] = of_component[component[group]]
        out.append(splits)
    return out


def _groups(datasets: Sequence[Annotated], options: BuildOptions) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Names of all groups, sorted, and the group of each kept cell of each data set."""
    local = [_named_groups(dataset, options) for dataset in datasets]
    names = sorted({name for known, _ in local for name in known})
    place = {name: i for i, name in enumerate(names)}
    return names, [np.array([place[n] for n in known], dtype=np.int64)[codes] for known, codes in local]


def _named_groups(dataset: Annotated, options: BuildOptions) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the groups in a data set, and which of them each kept cell is in."""
    own = f"{dataset.number:05d}"
    if options.split_by == "dataset":
        return [f"{own} {dataset.source.name}"], np.zeros(int(dataset.kept.sum()), np.int64)
    if options.split_by == "tile":
        assert options.tile_side is not None  # `jobs.check` has seen to it
        with naming(dataset.source):
            sections = dataset.sections
            own_sections = None if sections is None else sections.values[sections.codes[dataset.kept]]
            tiles = spatial_blocks(dataset.coordinates[dataset.kept], options.tile_side, own_sections)
        there, codes = np.unique(tiles, return_inverse=True)
        return [f"{own} tile {tile}" for tile in there], codes.astype(np.int64)
    column = dataset.field(options.split_by)
    there, codes = np.unique(column.codes[dataset.kept], return_inverse=True)
    values = [str(column.values[code]) for code in there]
    return [f"value {value}" if value else f"{own} no value" for value in values], codes.astype(np.int64)


def _joined(
    groups: Sequence[NDArray[np.int64]], classes: Sequence[NDArray[np.int64]], n_groups: int, n_classes: int
) -> NDArray[np.int64]:
    """Component of each group: groups that share copies of a cell belong together."""
    edges = [np.zeros((0, 2), np.int64)]
    for group, member in zip(groups, classes, strict=True):
        shared = np.flatnonzero(member >= 0)
        edges.append(np.unique(np.stack([group[shared], member[shared] + n_groups], axis=1), axis=0))
    pairs = np.concatenate(edges)
    n = n_groups + n_classes
    graph = sparse.coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1][:n_groups]
    # a component is called after its first group
    first, place = np.unique(labels, return_index=True, return_inverse=True)[1:]
    return np.unique(first[place], return_inverse=True)[1].astype(np.int64)


def _counts(
    datasets: Sequence[Annotated], components: Sequence[NDArray[np.int64]], n_components: int, options: BuildOptions
) -> sparse.csr_matrix:
    """Cells of each component: all, those of each label, and those of each label in each data set.

    Where data sets stay whole, strata of one of them are left out: they cannot be spread, and every data set would be
    drawn by its own to the largest split.
    """
    labels: dict[tuple, int] = {(): 0}
    parts = []
    for dataset, component in zip(datasets, components, strict=True):
        strata = _strata(dataset, np.flatnonzero(dataset.kept), options)
        values = [""] if options.stratify is None else dataset.field(options.stratify).values.tolist()
        pairs, cells = np.unique(component * len(values) + strata, return_counts=True)
        of, label = pairs // len(values), [values[i] for i in (pairs % len(values)).tolist()]
        for keys in ([()] * len(of), [(x,) for x in label], [(x, dataset.number) for x in label]):
            parts.append(np.stack([of, [labels.setdefault(key, len(labels)) for key in keys], cells]))
    row, column, cells = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.int64)
    counts = sparse.coo_matrix((cells, (row, column)), shape=(n_components, len(labels))).tocsr()
    if options.split_by != "dataset":
        return counts
    spread = counts.getnnz(axis=0) > 1
    return counts[:, spread | (np.arange(len(spread)) == 0)]
