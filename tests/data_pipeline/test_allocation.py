"""Which split cells go into: by cell, group or place; nothing that belongs together comes apart."""

import dataclasses
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist

from c2s_jax.data.corpus import Corpus
from data_pipeline.allocation import allocate
from data_pipeline.build import build_corpus
from data_pipeline.duplicates import find_copies
from data_pipeline.jobs import BuildOptions
from data_pipeline.records import Codes
from data_pipeline.sources import Source
from data_pipeline.split import cell_hashes

FRACTIONS = (0.6, 0.2, 0.2)


class Described:
    """What `allocate` asks of a data set, from lists."""

    def __init__(self, number, names, fields, coordinates=None, kept=None):
        self.number, self._fields, self.coordinates = number, fields, coordinates
        self.source = SimpleNamespace(name=f"set {number}", file=None)
        self.kept = np.ones(len(names), bool) if kept is None else kept
        self.hashes = cell_hashes(names, 0)

    def field(self, name):
        return Codes.of(np.array(self._fields[name], dtype=object))

    def measured(self):
        return SimpleNamespace(split_hashes=self.hashes)


def no_copies(datasets):
    keys = np.split(np.arange(sum(len(d.kept) for d in datasets), dtype=np.uint64), [len(datasets[0].kept)])
    return find_copies(keys, [d.kept for d in datasets])


cells = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "e", "f", "g", ""]),  # donor
        st.sampled_from("xyz"),  # label
        st.integers(0, 60),  # key of the cell: equal keys are copies
        st.booleans(),  # kept
    ),
    min_size=1,
    max_size=80,
)


def described(*sets):
    """Data sets of such cells, and their copies."""
    datasets, keys = [], []
    for number, rows in enumerate(sets):
        donors, labels, its_keys, kept = zip(*rows, strict=True)
        names = [f"{number} {i}" for i in range(len(rows))]
        datasets.append(Described(number, names, {"donor": donors, "cell_type": labels}, kept=np.array(kept)))
        keys.append(np.array(its_keys, np.uint64))
    return datasets, keys, find_copies(keys, [d.kept for d in datasets])


@settings(deadline=None, max_examples=150)
@given(one=cells, two=cells, split_by=st.sampled_from(["cell", "donor", "dataset"]), seed=st.integers(0, 3))
def test_groups_and_copies_never_come_apart(one, two, split_by, seed):
    datasets, keys, copies = described(one, two)
    options = BuildOptions(FRACTIONS, split_by=split_by, seed=seed)
    try:
        splits = allocate(datasets, copies, options)
    except ValueError:  # fewer groups than splits
        assert split_by != "cell"
        return
    where: dict[tuple, set[int]] = {}
    for dataset, its_splits, its_keys in zip(datasets, splits, keys, strict=True):
        assert ((its_splits >= 0) == dataset.kept).all()
        for i in np.flatnonzero(dataset.kept):
            donor = dataset._fields["donor"][i]
            groups = {
                "cell": [],
                "dataset": [("set", dataset.number)],
                "donor": [("donor", donor) if donor else ("none", dataset.number)],
            }[split_by]
            for group in [*groups, ("copy", its_keys[i])]:
                where.setdefault(group, set()).add(int(its_splits[i]))
    assert all(len(found) == 1 for found in where.values())


HELD_OUT = ({"donor": ["a", "b"], "cell_type": ["x"]}, {"donor": ["c"]})


@settings(deadline=None, max_examples=100)
@given(one=cells, two=cells, split_by=st.sampled_from(["cell", "donor"]))
def test_conditions_are_held_out(one, two, split_by):
    """They and their copies are test cells; what becomes of the others does not depend on it."""
    datasets, _, copies = described(one, two)

    def held(row):
        return row[3] and ((row[0] in ("a", "b") and row[1] == "x") or row[0] == "c")

    out = {row[2] for row in (*one, *two) if held(row)}
    options = BuildOptions(FRACTIONS, split_by=split_by)
    try:
        before = allocate(datasets, copies, options)
    except ValueError:  # fewer groups than splits
        return
    options = dataclasses.replace(options, held_out=HELD_OUT)
    kept = [row for row in (*one, *two) if held(row)]
    if not any(row[0] == "c" for row in kept) or not any(row[0] in ("a", "b") for row in kept):
        with pytest.raises(ValueError, match="held_out: no cell is of the condition donor"):
            allocate(datasets, copies, options)
        return
    after = allocate(datasets, copies, options)
    for rows, a, b in zip((one, two), before, after, strict=True):
        np.testing.assert_array_equal(b, np.where([row[3] and row[2] in out for row in rows], 2, a))


@settings(deadline=None, max_examples=40)
@given(one=cells, split_by=st.sampled_from(["cell", "donor"]), seed=st.integers(0, 99))
def test_row_order_does_not_matter(one, split_by, seed):
    def splits_in(order):
        donors, labels, keys, _ = zip(*(one[i] for i in order), strict=True)
        dataset = Described(0, [str(i) for i in order], {"donor": donors, "cell_type": labels})
        copies = find_copies([np.array(keys, np.uint64)], [dataset.kept])
        try:
            found = allocate([dataset], copies, BuildOptions(FRACTIONS, split_by=split_by))[0]
        except ValueError:
            return None
        return dict(zip(order, found.tolist(), strict=True))

    order = np.random.default_rng(seed).permutation(len(one)).tolist()
    assert splits_in(order) == splits_in(range(len(one)))


def test_without_copies_each_data_set_has_its_shares():
    datasets = [
        Described(i, [f"c{j}" for j in range(n)], {"cell_type": list("xyz") * (n // 3)}) for i, n in enumerate((90, 30))
    ]
    splits = allocate(datasets, no_copies(datasets), BuildOptions(FRACTIONS))
    assert [np.bincount(s).tolist() for s in splits] == [[54, 18, 18], [18, 6, 6]]


@pytest.mark.parametrize("labels", ["x", None], ids=["one label", "a label each"])
def test_data_sets_have_the_shares_too(labels):
    """Each is the only one in its stratum of the data set; those must not draw all of them to the largest split."""
    datasets = [
        Described(i, [f"{i} {j}" for j in range(30)], {"cell_type": [labels or f"of {i}"] * 30}) for i in range(20)
    ]
    keys = np.split(np.arange(600, dtype=np.uint64), 20)
    copies = find_copies(keys, [d.kept for d in datasets])
    splits = allocate(datasets, copies, BuildOptions((0.8, 0.1, 0.1), split_by="dataset"))
    assert np.bincount([s[0] for s in splits]).tolist() == [16, 2, 2]


def test_a_donor_of_two_data_sets_is_one_donor_and_labels_are_spread():
    rng = np.random.default_rng(0)
    datasets = []
    for number in range(2):
        donors = [f"d{i % 15}" for i in range(600)]
        labels = rng.choice(["x", "y"], 600).tolist()
        datasets.append(
            Described(number, [f"{number} {i}" for i in range(600)], {"donor": donors, "cell_type": labels})
        )
    splits = allocate(datasets, no_copies(datasets), BuildOptions((0.8, 0.0, 0.2), split_by="donor"))
    assert [np.bincount(s, minlength=3).tolist() for s in splits] == [[480, 0, 120]] * 2
    for dataset, its_splits in zip(datasets, splits, strict=True):
        labels = np.array(dataset._fields["cell_type"])
        assert abs((labels[its_splits == 2] == "x").mean() - (labels == "x").mean()) < 0.06
    np.testing.assert_array_equal(*splits)


# in space


def spatial(n=400, seed=0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(2.0, (n, 40)).astype(np.float32)))
    adata.var_names = [f"G{i}" for i in range(40)]
    adata.obs_names = [f"spot{seed} {i}" for i in range(n)]
    adata.obs["type"] = [f"type {i % 2}" for i in range(n)]
    adata.obsm["spatial"] = rng.uniform(-100, 300, (n, 2))
    return adata


def placed(seed=0, **options) -> Source:
    return Source(
        spatial(seed=seed), f"slide {seed}", obs_columns={"cell_type": "type"}, spatial_key="spatial", **options
    )


def positions(cells) -> pd.DataFrame:
    rows = [(cell.cell_id, cell.dataset, *cell.coordinates) for cell in cells]
    return pd.DataFrame(rows, columns=["name", "dataset", "x", "y"])


def test_tiles_are_whole(tmp_path):
    output = build_corpus([placed(0), placed(1)], tmp_path / "c", split_by="tile", tile_side=50.0, split=FRACTIONS)
    corpus = Corpus(output)
    found = pd.concat({split: positions(corpus.cells(split)) for split in corpus.splits}, names=["split"])
    tiles = found.assign(i=np.floor(found.x / 50), j=np.floor(found.y / 50)).reset_index()
    assert (tiles.groupby(["dataset", "i", "j"])["split"].nunique() == 1).all()
    assert len(tiles.groupby(["dataset", "i", "j"])) > 100
    shares = tiles["split"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.6) < 0.03
    assert found.x.dtype == np.float32


def test_neighbours_are_those_within_the_radius_in_the_split(tmp_path):
    plain = Source(spatial(seed=7), "plain", obs_columns={"cell_type": "type"})
    sources = [placed(0, radius=30.0, spatial_unit="µm"), plain, placed(1, radius=45.0)]
    corpus = Corpus(build_corpus(sources, tmp_path / "c"))
    radius = [30.0, -1.0, 45.0]
    for split in corpus.splits:
        cells = corpus.cells(split)
        indptr, indices = cells.neighbours
        assert (indptr.dtype, indices.dtype, len(indptr)) == (np.int64, np.int32, len(cells) + 1)
        where = positions([cell for cell in cells if len(cell.coordinates)])
        place = dict(zip(where.name, where[["x", "y"]].to_numpy(), strict=True))
        names = cells.cell_ids()
        for dataset in range(3):
            mine = np.flatnonzero(cells.dataset_ids == dataset)
            points = np.array([place.get(name, [0, 0]) for name in names[mine]])
            near = cdist(points, points) <= radius[dataset]
            np.fill_diagonal(near, False)
            for i, row in zip(mine, near, strict=True):
                assert indices[indptr[i] : indptr[i + 1]].tolist() == mine[row].tolist()
        assert (np.diff(indptr) > 0).any()
    assert [d["radius"] for d in corpus.datasets] == [30.0, None, 45.0]
    assert [d["spatial_unit"] for d in corpus.datasets] == ["µm", "", ""]


def sections(**options) -> Source:
    """Four donors, each on two sections with coordinates of their own."""
    adata = spatial()
    adata.obsm["spatial"] += 100
    adata.obs["slide"] = [f"slide {i % 8}" for i in range(adata.n_obs)]
    adata.obs["who"] = [f"donor {i % 4}" for i in range(adata.n_obs)]
    columns = {"cell_type": "type", "donor": "who"}
    return Source(adata, "slides", obs_columns=columns, spatial_key="spatial", **options)


def test_cells_of_two_sections_are_no_neighbours(tmp_path):
    corpus = Corpus(build_corpus(sections(radius=40.0, section="slide"), tmp_path / "c", stratify=None))
    for split in corpus.splits:
        cells = corpus.cells(split)
        indptr, indices = cells.neighbours
        points, slide = positions(cells)[["x", "y"]].to_numpy(), np.array([int(x[6:]) % 8 for x in cells.cell_ids()])
        near = (cdist(points, points) <= 40) & (slide[:, None] == slide)
        np.fill_diagonal(near, False)
        np.testing.assert_array_equal(indices, np.nonzero(near)[1])
        np.testing.assert_array_equal(np.diff(indptr), near.sum(axis=1))
    report = corpus.datasets[0]["provenance"]["report"]
    assert "obs['slide'] tells apart 8 sections in space" in report
    assert not any("of another donor" in line for line in report)


def test_neighbours_of_other_donors_are_reported(tmp_path):
    corpus = Corpus(build_corpus(sections(radius=40.0), tmp_path / "c", split=(1, 0, 0)))
    cells = corpus.cells("train")
    donors, (indptr, indices) = cells.fields("donor"), cells.neighbours
    share = np.mean(np.repeat(donors, np.diff(indptr)) != donors[indices])
    (said,) = [x for x in corpus.datasets[0]["provenance"]["report"] if "of another donor" in x]
    assert said.startswith(f"{share:.1%} of neighbours are of another donor or batch; if sections have coordinates")
    assert 0.6 < share < 0.9


def test_tiles_of_two_sections_are_two(tmp_path):
    """Where one tile holds all cells, sections are what is split; a section is whole."""
    source = sections(section="slide")
    corpus = Corpus(build_corpus(source, tmp_path / "c", split_by="tile", tile_side=1000.0, split=FRACTIONS))
    slides = {split: {int(x[6:]) % 8 for x in corpus.cells(split).cell_ids()} for split in corpus.splits}
    assert sorted(x for found in slides.values() for x in found) == list(range(8))


def test_cells_without_a_section(tmp_path):
    source = sections(section="slide")
    source.data.obs.loc[source.data.obs_names[3], "slide"] = None
    message = r"slides: spatial: section: adata.obs\['slide'\] has no value for 1 of 400 cells: spot0 3;"
    with pytest.raises(ValueError, match=message):
        build_corpus(source, tmp_path / "c")


def test_no_neighbours_without_a_radius(tmp_path):
    corpus = Corpus(build_corpus(placed(), tmp_path / "c"))
    assert corpus.cells("train").neighbours is None
    assert not list(corpus.path.glob("neighbours*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split_by": "donor"}, "slide 0: cannot split by 'donor', no column"),
        ({"split_by": "donors"}, "'donors' is no field of a corpus; did you mean 'donor'"),
        ({"split_by": "tile"}, "tile_side"),
        ({"tile_side": 5.0}, "tile_side"),
        ({"split_by": "tile", "tile_side": -1.0}, "slide 0: .*must be a positive number"),
        ({"split_by": "dataset"}, "cannot split by dataset: there are 1 to go into 3 splits"),
        ({"duplicates_cells": "merge"}, "duplicates_cells='merge'"),
        ({"target_sum": -1.0}, "target_sum must be a positive number"),
        ({"scale": "log3"}, "scale must be one of"),
        ({"empty_cells": "skip"}, "empty_cells must be"),
        ({"duplicates": "merge"}, "duplicates must be"),
        ({"unit_cells": 0}, "unit_cells"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"ties": "random"}, "ties='random': expected 'hash' or 'cell2sentence'"),
        ({"workers": 0}, "workers"),
    ],
)
def test_choices_that_cannot_be(tmp_path, change, message):
    of_source = {key: change.pop(key) for key in ("target_sum", "scale", "empty_cells", "duplicates") if key in change}
    with pytest.raises(ValueError, match=message):
        build_corpus(placed(expression=of_source), tmp_path / "c", **change)
    assert list(tmp_path.iterdir()) == []


def test_tiles_without_coordinates(tmp_path):
    source = Source(spatial(), "s", obs_columns={"cell_type": "type"})
    with pytest.raises(ValueError, match="s: cannot split by tiles without coordinates"):
        build_corpus(source, tmp_path / "c", split_by="tile", tile_side=5.0)
