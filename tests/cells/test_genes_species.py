import pytest

from c2s_jax.cells import CellDataError
from c2s_jax.cells.species import one_species, species_tags, strip_prefix

BARNYARD = ["GRCh38_ACTB", "GRCh38_HLA-A", "mm10___Actb", "mm10___H2-K1", "ERCC-00002"]
ENSEMBL = ["ENSG00000075624", "ENSG00000111640.15", "ENSMUSG00000029580", "ENST00000000233"]


def test_tags_are_assemblies_and_kinds_of_identifier():
    assert species_tags(BARNYARD) == ["GRCh38", "GRCh38", "mm10", "mm10", ""]
    assert species_tags(ENSEMBL) == ["ENSG", "ENSG", "ENSMUSG", "ENST"]
    assert species_tags(["hg19_TP53", "GRCm39_Actb", "hg38-2020_A"]) == ["hg19", "GRCm39", "hg38-2020"]
    # symbols that only look a little like it
    assert set(species_tags("HLA-A MT_CO1 RN7SL1 AC_000.1 mt-Co1 MMP10 Hg_1 ensa GRCC10".split())) == {""}


@pytest.mark.parametrize("names", [BARNYARD, ENSEMBL])
def test_several_species_have_to_be_chosen_from(names):
    tag = species_tags(names)[0]
    with pytest.raises(CellDataError, match=f"genes of several species: 2 of .*Choose one with genes_prefix='{tag}'"):
        one_species(names, None)


@pytest.mark.parametrize("prefix", ["mm10", "mm10_", "mm10___"])
def test_the_chosen_one_is_kept(prefix):
    found, keep, report = one_species(BARNYARD, prefix)
    assert (found, keep.tolist()) == ("mm10", [False, False, True, True, False])
    assert report == "3 genes that are not of mm10 are left out (2 of GRCh38, 2 of mm10)"
    assert strip_prefix(BARNYARD, found) == ["GRCh38_ACTB", "GRCh38_HLA-A", "Actb", "H2-K1", "ERCC-00002"]


def test_identifiers_choose_too():
    _, keep, _ = one_species(ENSEMBL, "ENSMUSG")
    assert keep.tolist() == [False, False, True, False]


def test_a_prefix_of_the_users_own():
    names = ["pig_v1_ACTB", "pig_v1__CD4", "dog_ACTB"]
    _, keep, _ = one_species(names, "pig_v1")
    assert keep.tolist() == [True, True, False]
    assert strip_prefix(names, "pig_v1") == ["ACTB", "CD4", "dog_ACTB"]
    with pytest.raises(CellDataError, match="no gene is of genes_prefix='cat'; there are no prefixes at all"):
        one_species(names, "cat")


def test_one_species_needs_no_choice():
    assert one_species(["hg19_A", "hg19_B"], None)[0] == "hg19"
    assert one_species(["ACTB", "CD4"], None)[0] is None
    one_reporter = ["ENSG00000000001"] * 300 + ["ENSMUSG00000000001"]
    prefix, keep, report = one_species(one_reporter, None)
    assert (prefix, keep.all(), report) == ("ENSG", True, "")


def test_species_of_genes_may_come_from_elsewhere():
    _, keep, _ = one_species(["ACTB", "Actb"], "mm10", tags=["GRCh38", "mm10"])
    assert keep.tolist() == [False, True]
