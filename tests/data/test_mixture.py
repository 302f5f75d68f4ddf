import numpy as np
import pytest

from c2s_jax.data import Mixture, MixtureTask
from c2s_jax.data.contexts import MissingData

ANNOTATION = MixtureTask("cell_type_annotation", weight=3.0)
MODELLING = MixtureTask("cell_sentence_modelling", weight=1.0)


@pytest.fixture
def make(make_cells, corpus_of):
    def make(tasks=(ANNOTATION, MODELLING), cells=None, seed=0, **settings) -> Mixture:
        return Mixture(tasks, corpus_of(cells or make_cells()), "train", seed=seed, **settings)

    return make


def cells_of(mixture: Mixture, blocks, task: int) -> np.ndarray:
    """Cells asked about by one task in some blocks."""
    numbers = np.concatenate([b.number[b.task == task] for b in blocks])
    return mixture.streams[task].draw(numbers).lists


def test_shares_are_exact(make):
    mixture = make()
    for block in range(5):
        assert np.bincount(mixture.block(block, 400).task).tolist() == [300, 100]


def test_a_rare_task_is_never_left_out(make):
    mixture = make([ANNOTATION, MixtureTask("cell_sentence_modelling", weight=1e-6)])
    assert np.bincount(mixture.block(0, 100).task).tolist() == [100, 1]


def test_tasks_are_interleaved(make):
    task = make().block(0, 400).task
    assert abs(task[:200].sum() - 50) < 30


def test_every_cell_once_an_epoch_across_blocks(make, make_cells):
    cells = make_cells(40)
    labelled = np.flatnonzero(cells.fields("cell_type") != "")
    mixture = make(cells=cells)
    blocks = [mixture.block(b, 40) for b in range(16)]  # 30 + 10 a block
    count = np.bincount(cells_of(mixture, blocks, 0), minlength=40)
    assert set(count[labelled].tolist()) == {15}  # 16 × 30 = 15 × 32 labelled cells
    assert count.sum() == 480
    assert np.bincount(cells_of(mixture, blocks, 1), minlength=40).tolist() == [4] * 40


def test_numbers_go_on_from_block_to_block(make):
    blocks = [make().block(b, 40) for b in range(3)]
    assert sorted(np.concatenate([b.number[b.task == 0] for b in blocks]).tolist()) == list(range(90))


def test_a_block_is_a_function_of_seed_and_number(make):
    def block(seed, number):
        return np.stack(list(vars(make(seed=seed).block(number, 100)).values()))

    np.testing.assert_array_equal(block(1, 2), block(1, 2))
    assert not np.array_equal(block(1, 2), block(1, 3))
    assert not np.array_equal(block(1, 2), block(2, 2))


def test_no_cell_has_the_field(make, make_cells):
    with pytest.raises(
        ValueError, match="cell_type_annotation: no cell of the corpus' split 'train' has cell_type; map an obs column"
    ):
        make([ANNOTATION], make_cells(10, unlabelled=1))


def test_tasks_without_data_can_be_left_out(make, make_cells):
    mixture = make(cells=make_cells(10, unlabelled=1), missing="skip")
    assert mixture.shares.tolist() == [0, 1]
    assert set(mixture.block(3, 50).task.tolist()) == {1}  # the numbers of the tasks stay
    assert list(mixture.lacking) == ["cell_type_annotation"]
    assert "map an obs column" in mixture.lacking["cell_type_annotation"]
    with pytest.raises(MissingData, match="no data for any task:\n.*cell_type_annotation"):
        make([ANNOTATION], make_cells(10, unlabelled=1), missing="skip")


def test_empty_mixture(make):
    with pytest.raises(ValueError, match="no tasks"):
        make([])
