from hypothesis import given
from hypothesis import strategies as st

from c2s_jax.cells.aliases import AliasTable, rename_aliases

TABLE = AliasTable.of(
    [("SEPT9", "SEPTIN9"), ("MARCH1", "MARCHF1"), ("p53", "TP53"), ("CD3", "CD3E"), ("CD3", "CD3D"), ("ACTB", "ACTG1")],
    symbols=["SEPTIN9", "MARCHF1", "TP53", "CD3E", "CD3D", "ACTB", "ACTG1"],
)


def test_aliases_become_symbols():
    names, known, report = rename_aliases(["Sept9", "P53", "CD3E", "LOC1"], TABLE)
    assert names == ["SEPTIN9", "TP53", "CD3E", "LOC1"]
    assert known.tolist() == [True, True, True, False]
    assert report == [
        "2 genes get their approved symbol: Sept9 → SEPTIN9, P53 → TP53",
        "1 of 4 names are no approved symbols: LOC1",
    ]


def test_approved_symbols_are_never_renamed():
    names, _, report = rename_aliases(["ACTB", "Actb"], TABLE)
    assert (names, report) == (["ACTB", "Actb"], [])
    assert "ACTB" not in TABLE


def test_ambiguous_aliases_stay_and_are_reported():
    names, known, report = rename_aliases(["CD3"], TABLE)
    assert (names, known.tolist()) == (["CD3"], [False])
    assert report[0] == "1 aliases of several symbols keep their name: CD3"


def test_no_two_genes_get_one_name():
    names, _, report = rename_aliases(["SEPT9", "SEPTIN9", "MARCH1"], TABLE)
    assert names == ["SEPT9", "SEPTIN9", "MARCHF1"]
    assert report[1] == "1 aliases keep their name, as another gene has the symbol: SEPT9 (→ SEPTIN9)"
    twice = AliasTable.of([("A1", "A"), ("A2", "A")])
    assert rename_aliases(["A1", "A2"], twice)[0] == ["A1", "A2"]


def test_a_plain_mapping_knows_no_other_symbols():
    names, known, report = rename_aliases(["Gm1", "Xyz", "Gm2"], {"GM1": "Actb", "XYZ": "Gm2"})
    assert (names, known.tolist()) == (["Actb", "Xyz", "Gm2"], [True, True, True])
    assert len(report) == 2


NAMES = st.sampled_from([f"{letter}{i}" for letter in "abAB" for i in range(4)])


@given(st.lists(NAMES, unique_by=str.upper), st.lists(st.tuples(NAMES, NAMES), max_size=12))
def test_names_stay_as_many_and_as_distinct_as_they_were(names, pairs):
    table = AliasTable.of(pairs)
    renamed, known, _ = rename_aliases(names, table)
    assert len(renamed) == len(known) == len(names)
    assert len({name.upper() for name in renamed}) == len(names)
    for old, new in zip(names, renamed, strict=True):
        symbols = {symbol.upper() for alias, symbol in pairs if alias.upper() == old.upper()}
        assert new == old or symbols == {new.upper()}
        if old.upper() in {symbol.upper() for _, symbol in pairs}:
            assert new == old
