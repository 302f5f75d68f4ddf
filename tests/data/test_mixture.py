import numpy as np
import pytest

from c2s_jax.data import Mixture, MixtureTask

ANNOTATION = MixtureTask("cell_type_annotation", weight=3.0)
MODELLING = MixtureTask("cell_sentence_modelling", weight=1.0)


def test_shares_are_exact(make_cells):
    mixture = Mixture([ANNOTATION, MODELLING], make_cells(), seed=0)
    for block in range(5):
        assert np.bincount(mixture.draw(block, 400).task).tolist() == [300, 100]


def test_a_rare_task_is_never_left_out(make_cells):
    mixture = Mixture([ANNOTATION, MixtureTask("cell_sentence_modelling", weight=1e-6)], make_cells(), seed=0)
    assert np.bincount(mixture.draw(0, 100).task).tolist() == [100, 1]


def test_tasks_are_interleaved(make_cells):
    task = Mixture([ANNOTATION, MODELLING], make_cells(), seed=0).draw(0, 400).task
    assert abs(task[:200].sum() - 50) < 30


def test_every_cell_once_an_epoch_across_blocks(make_cells):
    cells = make_cells(40)
    labelled = np.flatnonzero(cells.fields("cell_type") != "")
    mixture = Mixture([ANNOTATION, MODELLING], cells, seed=0)
    draws = [mixture.draw(b, 40) for b in range(16)]  # 30 + 10 a block
    asked = np.concatenate([d.cell[d.task == 0] for d in draws])
    count = np.bincount(asked, minlength=40)
    assert set(count[labelled].tolist()) == {15}  # 16 × 30 = 15 × 32 labelled cells
    assert count.sum() == 480
    modelled = np.concatenate([d.cell[d.task == 1] for d in draws])
    assert np.bincount(modelled, minlength=40).tolist() == [4] * 40


def test_only_cells_with_the_fields(make_cells):
    cells = make_cells(40)
    draw = Mixture([ANNOTATION, MODELLING], cells, seed=0).draw(0, 800)
    labels = cells.fields("cell_type")
    assert (labels[draw.cell[draw.task == 0]] != "").all()
    assert (labels[draw.cell[draw.task == 1]] == "").any()


def test_templates_vary(make_cells):
    mixture = Mixture([ANNOTATION], make_cells(), seed=0)
    counts = np.bincount(mixture.draw(0, 800).template, minlength=len(mixture.templates[0]))
    assert len(counts) == len(mixture.templates[0])
    assert counts.min() > 50


def test_genes_kept_are_log_uniform(make_cells):
    task = MixtureTask("cell_sentence_modelling", min_genes=10, max_genes=999)
    kept = Mixture([task], make_cells(), seed=0).draw(0, 20_000).genes_kept
    assert kept.min() == 10
    assert kept.max() == 999
    assert np.mean(kept < 100) == pytest.approx(0.5, abs=0.02)
    fixed = MixtureTask("cell_sentence_modelling", min_genes=7, max_genes=7)
    assert set(Mixture([fixed], make_cells(), seed=0).draw(0, 1000).genes_kept.tolist()) == {7}


def test_a_block_is_a_function_of_seed_and_number(make_cells):
    def draw(seed, block):
        return np.stack(list(vars(Mixture([ANNOTATION, MODELLING], make_cells(), seed=seed).draw(block, 100)).values()))

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


def test_no_cell_has_the_field(make_cells):
    with pytest.raises(
        ValueError, match="cell_type_annotation: no cell of the corpus has cell_type; map an obs column"
    ):
        Mixture([ANNOTATION], make_cells(10, unlabelled=1), seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(task="annotation"), "unknown task 'annotation'; known: .*cell_type_annotation"),
        (dict(loss="responses"), "cell_type_annotation: loss='responses' must be"),
        (dict(weight=0.0), "weights must be positive"),
        (dict(response_weight=-1.0), "weights must be positive"),
        (dict(min_genes=0), "1 <= min_genes <= max_genes"),
        (dict(min_genes=5, max_genes=4), "1 <= min_genes <= max_genes"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixtureTask(**{"task": "cell_type_annotation", **settings})


def test_empty_mixture(make_cells):
    with pytest.raises(ValueError, match="no tasks"):
        Mixture([], make_cells(), seed=0)
