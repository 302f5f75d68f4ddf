"""Temperatures against brute force and against data whose temperature is known; the facade against arithmetic."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from c2s_jax.inference.calibration import fit_temperature

QUIET = dict(progress=False)
LABELS = ["CD19+ B", "Dendritic", "CD56+ NK"]


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_it_finds_the_temperature_of_the_data(true):
    """Labels drawn from softmax(logits / T); and no temperature on a fine grid fits better."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(20_000, 5))
    truth = (softmax(logits / true, axis=1).cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)
    found = fit_temperature(logits, truth)
    assert found == pytest.approx(true, rel=0.05)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(20_000), truth].mean()

    assert loss(found) <= min(map(loss, np.geomspace(0.1, 10, 200))) + 1e-9


def test_cells_all_right_keep_it_finite():
    assert 0.04 < fit_temperature(np.eye(4) * 5, np.arange(4)) < 0.2


def test_annotate_at_a_temperature(model, pbmc):
    """p ** (1 / T), normalised; the labels stay."""
    plain, warm = (model.annotate(pbmc, LABELS, temperature=t, copy=True, **QUIET) for t in (1.0, 2.5))
    wanted = plain.obsm["c2s_cell_type_probabilities"].astype(np.float64) ** (1 / 2.5)
    wanted /= wanted.sum(axis=1, keepdims=True)
    found = warm.obsm["c2s_cell_type_probabilities"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(np.exp(warm.obs["c2s_cell_type_logprob"]), found.max(axis=1), rtol=1e-5)
    assert warm.obs["c2s_cell_type"].tolist() == plain.obs["c2s_cell_type"].tolist()
    assert warm.uns["c2s"]["annotate"]["settings"]["temperature"] == 2.5


def test_the_facade_fits_what_annotate_gives(model, pbmc):
    """On the cells that have a candidate's type; the others are named."""
    pbmc.obs["known"] = pbmc.obs["bulk_labels"].astype(str)
    with pytest.warns(UserWarning, match="whose known is no candidate do not count"):
        found = model.calibrate(pbmc, "known", LABELS, **QUIET)
    model.annotate(pbmc, LABELS, **QUIET)
    used = pbmc.obs["known"].isin(LABELS).to_numpy()
    assert 3 < used.sum() < len(used)
    logprobs = np.log(pbmc.obsm["c2s_cell_type_probabilities"][used].astype(np.float64))
    truth = [LABELS.index(x) for x in pbmc.obs["known"][used]]
    assert found == pytest.approx(fit_temperature(logprobs, np.array(truth)), rel=1e-3)


def test_errors(model, pbmc):
    with pytest.raises(ValueError, match="no column 'missing'"):
        model.calibrate(pbmc, "missing", LABELS, **QUIET)
    with pytest.raises(ValueError, match="is one of the 1 candidates"), pytest.warns(UserWarning, match="no candidate"):
        model.calibrate(pbmc, "bulk_labels", ["a type of its own"], **QUIET)
    with pytest.raises(ValueError, match="must be a positive number"):
        model.annotate(pbmc, LABELS, temperature=0.0, **QUIET)
    with pytest.raises(ValueError, match="free text have none"):
        model.annotate(pbmc, free_text=True, temperature=2.0, **QUIET)
