import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import chisquare

from c2s_jax.cells import CellDataError
from c2s_jax.cells.neighbourhoods import cells_outside, radius_graph, spatial_blocks

RADIUS = 1.5


@pytest.fixture
def points() -> np.ndarray:
    """Two sections of a tissue that lie over one another, in random order, with cells at one place."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 10, (300, 2)).astype(np.float32)
    points[7] = points[8]
    return points


@pytest.fixture
def section() -> np.ndarray:
    return np.random.default_rng(1).choice(["b", "a"], 300)


def near(points: np.ndarray, section: np.ndarray | None = None) -> np.ndarray:
    """Who is near whom, from the full table of distances, bool [C, C]."""
    table = cdist(points.astype(np.float64), points.astype(np.float64)) <= RADIUS
    np.fill_diagonal(table, False)
    return table if section is None else table & (section[:, None] == section)


def as_table(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    table = np.zeros((len(indptr) - 1,) * 2, bool)
    table[np.repeat(np.arange(len(table)), np.diff(indptr)), indices] = True
    assert table.sum() == len(indices)
    return table


@pytest.mark.parametrize("sections", [False, True])
def test_graph_is_the_table_of_distances(points, section, sections):
    dataset = section if sections else None
    indptr, indices = radius_graph(points, RADIUS, dataset)
    assert (indptr.dtype, indices.dtype) == (np.int64, np.int32)
    expected = near(points, dataset)
    np.testing.assert_array_equal(as_table(indptr, indices), expected)
    assert expected.any(axis=1).mean() > 0.9
    rising = np.diff(indices.astype(int)) > 0
    rising[indptr[1:-1] - 1] = True
    assert rising.all()


def test_radius_itself_is_within():
    indptr, indices = radius_graph([[0, 0], [3, 4], [3, 4.1]], 5)
    assert [indices[a:b].tolist() for a, b in zip(indptr, indptr[1:])] == [[1], [0, 2], [1]]


def test_third_dimension_counts():
    flat, tall = [[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 0, 2]]
    assert len(radius_graph(flat, RADIUS)[1]) == 2
    assert len(radius_graph(tall, RADIUS)[1]) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_cells(n):
    indptr, indices = radius_graph(np.zeros((n, 2)), 1)
    assert indptr.tolist() == [0] * (n + 1)
    assert not len(indices)


@pytest.mark.parametrize("sections", [False, True])
def test_outside_is_outside_and_reaches_every_cell(points, section, sections):
    dataset = section if sections else None
    indptr, indices = radius_graph(points, RADIUS, dataset)
    cells = np.array([5, 299, 7, 5])
    drawn = cells_outside(indptr, indices, cells, 3000, dataset=dataset, seed=3)
    assert drawn.shape == (4, 3000)
    within = near(points, dataset)
    for cell, row in zip(cells, drawn):
        allowed = ~within[cell] if dataset is None else ~within[cell] & (section == section[cell])
        allowed[cell] = False
        counts = np.bincount(row, minlength=300)
        assert not counts[~allowed].any()
        assert chisquare(counts[allowed]).pvalue > 1e-4
    np.testing.assert_array_equal(drawn[0], drawn[3])


def test_outside_depends_on_cell_and_seed_alone(points):
    indptr, indices = radius_graph(points, RADIUS)
    every = cells_outside(indptr, indices, np.arange(300), 4, seed=1)
    some = [250, 3, 17]
    np.testing.assert_array_equal(cells_outside(indptr, indices, some, 4, seed=1), every[some])
    np.testing.assert_array_equal(cells_outside(indptr, indices, some, 2, seed=1), every[some, :2])
    assert (cells_outside(indptr, indices, some, 4, seed=2) != every[some]).any()
    assert len(np.unique(every[0])) > 1
    assert len(np.unique(every[:, 0])) > 100


def test_nobody_outside():
    indptr, indices = radius_graph([[0, 0], [1, 0], [9, 9], [0, 1]], 2, dataset=[0, 0, 1, 0])
    outside = cells_outside(indptr, indices, [0, 2], 2, dataset=[0, 0, 1, 0])
    assert outside.tolist() == [[-1, -1], [-1, -1]]
    # The one cell that is left is found, however few they are.
    indptr, indices = radius_graph([[0, 0], [1, 0], [9, 9], [0, 1]], 2)
    assert cells_outside(indptr, indices, [0, 2], 50)[0].tolist() == [2] * 50
    assert set(cells_outside(indptr, indices, [2], 50)[0]) == {0, 1, 3}
    assert cells_outside(indptr, indices, [], 2).shape == (0, 2)
    with pytest.raises(CellDataError, match="0 … 4 asked for, there are those from 0 to 3"):
        cells_outside(indptr, indices, [0, 4], 1)


def test_blocks_are_squares():
    where = [[0.5, 0.5], [4.9, 0.1], [5.0, 0.1], [-0.1, 0.1], [0.5, 7], [4, 4]]
    assert spatial_blocks(where, 5).tolist() == ["0:0", "0:0", "1:0", "-1:0", "0:1", "0:0"]
    assert spatial_blocks(where[:2], 5, dataset=["x", "y"]).tolist() == ["x:0:0", "y:0:0"]
    assert spatial_blocks(np.column_stack([where, np.arange(6) * 100]), 5).tolist()[0] == "0:0"
    assert spatial_blocks(np.zeros((0, 2)), 5).tolist() == []


def test_block_does_not_depend_on_other_cells(points):
    every = spatial_blocks(points, 2.5)
    assert len(set(every)) == 16
    np.testing.assert_array_equal(spatial_blocks(points[100:110], 2.5), every[100:110])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: radius_graph(p[:, 0], 1), r"2 or 3 dimensions, their shape is \(300,\)"),
        (lambda p: radius_graph(p[:, :1], 1), r"their shape is \(300, 1\)"),
        (lambda p: radius_graph(np.where(p == p[4], np.nan, p), 1), "1 of 300 cells have no finite position.*row 4"),
        (lambda p: radius_graph(p, 0), "radius must be a positive number.*it is 0"),
        (lambda p: radius_graph(p, np.inf), "it is inf"),
        (lambda p: radius_graph(p, 1, np.zeros(3)), r"shape \(3,\), there are 300 cells"),
        (lambda p: radius_graph(np.tile(p, (5, 1)), 20), "1,499 neighbours on average, of 1,500 cells.*unit"),
        (lambda p: spatial_blocks(p, -1), "side of a block must be a positive number, it is -1"),
    ],
)
def test_unusable_input(points, call, message):
    with pytest.raises(CellDataError, match=message):
        call(points)
