"""Rewards against what they say they are, computed by hand."""

import re

import numpy as np
import pytest
from scipy.stats import kendalltau

from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.rl.rewards import REWARDS, Rewards, World
from tests.rl.conftest import GENES


def only(name: str, world: World, **settings):
    return Rewards({name: settings}, world)


def test_simple_rewards(completions) -> None:
    found = completions(
        ["CD3D CD3D NOPE ACTB.", "", "CD3D CD8A NKG7 ACTB GNLY.", "MX1"],
        [0, 0, 0, 0],
        truncated=np.array([False, False, False, True]),
    )
    wanted = {  # cell 0 is CD3D CD8A NKG7 ACTB GNLY
        "valid_genes": [0.5, 0.0, 1.0, 1.0],
        "gene_overlap": [0.4, 0.0, 1.0, 0.0],
        "gene_count": [0.4, 0.0, 1.0, 0.2],
        "finished": [1.0, 1.0, 1.0, 0.0],
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(only(name, found.world)(found).total, values, err_msg=name)


def test_exact_match(completions) -> None:
    found = completions(
        ["T cell.", "t CELL", "NK cell.", ""], [0] * 4, task="cell_type_annotation", references=["T cell."] * 4
    )
    np.testing.assert_array_equal(only("exact_match", found.world)(found).total, [1, 1, 0, 0])


OBO = """format-version: 1.2

[Term]
id: CL:0000000
name: cell

[Term]
id: CL:0000084
name: T cell
synonym: "T lymphocyte" EXACT []
is_a: CL:0000000

[Term]
id: CL:0000624
name: CD4-positive, alpha-beta T cell
is_a: CL:0000084

[Term]
id: CL:0000236
name: B cell
is_a: CL:0000000
"""


def test_ontology_match(completions, tmp_path) -> None:
    (tmp_path / "cl.obo").write_text(OBO)
    answers = ["T lymphocytes.", "CD4+ alpha-beta T cells", "B cell", "nonsense", "cell"]
    found = completions(answers, [0] * 5, task="cell_type_annotation", references=["T cell."] * 5)
    match = only("ontology_match", found.world, ontology=str(tmp_path / "cl.obo"), lineage=0.25)
    np.testing.assert_array_equal(match(found).total, [1, 0.25, 0, 0, 0])
    with pytest.raises(ValueError, match=r"lineage=2.0 must be within \[0, 1\]"):
        only("ontology_match", found.world, ontology=str(tmp_path / "cl.obo"), lineage=2.0)


def dense(corpus, cells) -> np.ndarray:
    out = np.zeros((len(cells), len(GENES)))
    for row, cell in zip(out, cells):
        row[corpus.source.lists[cell]] = np.float16(corpus.source.values[cell])
    return out


def reconstructed(names: list[str]) -> np.ndarray:
    out = np.zeros(len(GENES))
    for rank, name in enumerate(names):
        out[GENES.index(name)] = max(0.0, 2.0 - np.log10(1 + rank))
    return out


def test_more_genes_than_a_file_name_has_letters(corpus) -> None:
    names = ",".join(["MX1", *(f"ABSENT{i}" for i in range(1000)), "IFI6"])
    assert [GENES[g] for g in chosen_genes(corpus, names)] == ["IFI6", "MX1"]


@pytest.mark.parametrize("genes", ["", "IFI6,ISG15,MX1"])
def test_cell_mse(corpus, completions, genes) -> None:
    """Drawn cells are of the condition, and their mean over many draws is the mean over the condition."""
    texts = [["IFI6", "MX1", "ACTB"], ["CD3D"]]
    found = completions([" ".join(t) for t in texts], [1, 0])
    columns = chosen_genes(corpus, genes)
    wanted = [
        -np.mean((reconstructed(text) - dense(corpus, same))[:, columns] ** 2)
        for text, same in zip(texts, ([1, 3], [0, 2]))
    ]
    mean = only("cell_mse", found.world, genes=genes, real="mean")(found).total
    np.testing.assert_allclose(mean, wanted, rtol=1e-4)
    drawn = only("cell_mse", found.world, genes=genes)
    by_hand = [-np.mean((reconstructed(texts[0]) - dense(corpus, [c])[0])[columns] ** 2) for c in (1, 3)]
    seen = []
    for turn in range(400):
        again = completions(found.texts, [1, 0], numbers=np.array([2 * turn, 2 * turn + 1]))
        seen.append(drawn(again).total[0])
    assert np.isclose(np.unique(np.round(seen, 6)), np.sort(by_hand), rtol=1e-3).all()
    np.testing.assert_allclose(np.mean(seen), wanted[0], rtol=0.1)
    np.testing.assert_array_equal(drawn(found).total, drawn(completions(found.texts, [1, 0])).total)


def test_gene_set_score(completions) -> None:
    found = completions(["IFI6 MX1 ACTB", "ACTB CD3D"], [1, 1])
    score = only("gene_set_score", found.world, genes="IFI6,ISG15,MX1")(found).total
    for value, names in zip(score, (["IFI6", "MX1", "ACTB"], ["ACTB", "CD3D"])):
        made = reconstructed(names)
        np.testing.assert_allclose(value, made[3:6].mean() - np.delete(made, [3, 4, 5]).mean(), rtol=1e-5)
    low = only("gene_set_score", found.world, genes="IFI6,ISG15,MX1", sign=-1.0)(found).total
    np.testing.assert_allclose(low, -score)


@pytest.mark.parametrize("genes", ["", "CD3D,CD8A,NKG7,MX1"])
def test_kendall_tau(corpus, completions, genes) -> None:
    """As SciPy has it, with the genes that are not there tied at the end."""
    texts = ["NKG7 CD3D MX1 CD8A ACTB", "CD3D CD8A NKG7 ACTB GNLY", "ISG15", "ACTB MX1 NKG7 CD8A CD3D"]
    found = completions(texts, [0] * 4)  # cell 0 is CD3D CD8A NKG7 ACTB GNLY
    names = [GENES[g] for g in chosen_genes(corpus, genes)]
    want = [
        -(["CD3D", "CD8A", "NKG7", "ACTB", "GNLY"].index(n) if n in "CD3D CD8A NKG7 ACTB GNLY" else 9) for n in names
    ]
    tau = only("kendall_tau", found.world, genes=genes)(found).total
    for value, text in zip(tau, texts):
        words = text.split()
        expected = kendalltau([-(words.index(n) if n in words else 9) for n in names], want).statistic
        np.testing.assert_allclose(value, np.nan_to_num(expected), atol=1e-6)
    assert tau[1] == pytest.approx(1.0)


def test_genes_of_files(corpus, tmp_path) -> None:
    (tmp_path / "sets.gmt").write_text("A\tabout\tmx1\tIFI6\nB\t\tCD3D\tNONE\n")
    (tmp_path / "list.txt").write_text("NKG7\nACTB\n")
    named = {
        f"{tmp_path}/sets.gmt:A": [3, 5],
        f"{tmp_path}/sets.gmt:A+B": [0, 3, 5],
        f"{tmp_path}/sets.gmt": [0, 3, 5],
        f"{tmp_path}/list.txt": [6, 7],
        " cd3d, MX1 ": [0, 5],
    }
    for which, ids in named.items():
        assert chosen_genes(corpus, which).tolist() == ids
    with pytest.raises(ValueError, match="has no set C; it has 2, such as A"):
        chosen_genes(corpus, f"{tmp_path}/sets.gmt:C")
    with pytest.raises(ValueError, match="none of its 1 genes is in the corpus"):
        chosen_genes(corpus, "XIST")


def mine(world: World, *, divisor: float):
    """A user's own reward."""
    return lambda completions: completions.lengths / divisor


def broken(world: World):
    def reward(completions):
        raise KeyError("no such gene")

    return reward


def test_parts_add_up(completions) -> None:
    found = completions(["CD3D", "NOPE"], [0, 0])
    scored = Rewards(
        {"valid_genes": {"weight": 2.0}, "mine": {"path": f"{__name__}:mine", "weight": -1.0, "divisor": 10.0}},
        found.world,
    )(found)
    np.testing.assert_allclose(scored.parts["valid_genes"], [1, 0])
    np.testing.assert_allclose(scored.total, [2 * 1 - 0.5, -0.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "grpo.rewards is empty"),
        ({"valid": {}}, "grpo.rewards.valid: no such reward; there are valid_genes"),
        ({"valid_genes": {"wieght": 1.0}}, "grpo.rewards.valid_genes: .*wieght"),
        ({"x": {"path": "nowhere.at.all:f"}}, r"grpo.rewards.x.path='nowhere.at.all:f' cannot be had"),
        ({"x": {"path": f"{__name__}:absent"}}, "absent"),
        ({"cell_mse": {"real": "first"}}, 'real=\'first\' must be "drawn" or "mean"'),
    ],
)
def test_settings_that_cannot_be(corpus, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Rewards(settings, World(corpus))


def test_a_reward_that_fails_shows_the_completion(completions, monkeypatch) -> None:
    found = completions(["CD3D GNLY", "ACTB"], [0, 0])
    with pytest.raises(ValueError, match=r"grpo.rewards.b raised KeyError.*no such gene.*'CD3D GNLY'"):
        Rewards({"b": {"path": f"{__name__}:broken"}}, found.world)(found)
    monkeypatch.setitem(REWARDS, "nan", lambda world: lambda c: np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=re.escape("grpo.rewards.nan gave nan for completion 1: 'ACTB'")):
        Rewards({"nan": {}}, found.world)(found)
    masked = Rewards({"nan": {}, "valid_genes": {}}, found.world, errors="mask")(found)
    np.testing.assert_array_equal(masked.total, [2.0, np.nan])
    assert np.isnan(Rewards({"b": {"path": f"{__name__}:broken"}}, found.world, errors="mask")(found).total).all()
    monkeypatch.setitem(REWARDS, "one", lambda world: lambda c: np.zeros(1))
    with pytest.raises(ValueError, match=r"gave shape \(1,\) for 2 completions"):
        Rewards({"one": {}}, found.world, errors="mask")(found)
