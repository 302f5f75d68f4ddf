"""Genes that a setting names, from files of gene sets."""

import gzip
from types import SimpleNamespace

import pytest

from c2s_jax.cells import GeneVocabulary
from c2s_jax.data.chosen_genes import chosen_genes

CORPUS = SimpleNamespace(genes=GeneVocabulary(["CD3D", "IFI6", "MX1", "NKG7"]))
SETS = "INTERFERON\tabout\tmx1\tIFI6\t\nT_CELLS\t\tCD3D\tNONE\nT_CELLS\tmore\tNKG7\n"


def test_sets_plain_and_compressed(tmp_path):
    (tmp_path / "sets.gmt").write_text("\ufeff" + SETS.replace("\n", "\r\n"))
    (tmp_path / "sets.gmt.gz").write_bytes(gzip.compress(SETS.encode()))
    for file in ("sets.gmt", "sets.gmt.gz"):
        assert chosen_genes(CORPUS, f"{tmp_path}/{file}:INTERFERON").tolist() == [1, 2]
        assert chosen_genes(CORPUS, f"{tmp_path}/{file}:T_CELLS").tolist() == [0, 3]
        assert chosen_genes(CORPUS, f"{tmp_path}/{file}").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SETS + "LONELY\n", r"sets\.gmt, line 4: expected name, description and genes.*'LONELY'"),
        (SETS + "WIDE\tx\tMX1, IFI6\n", r"line 4, set 'WIDE': 'MX1, IFI6' is no gene symbol; separate genes by tabs"),
        (SETS, r"sets\.gmt has no set INTERFERONS; it has 2, such as INTERFERON$"),
        ("\n", "holds no gene set"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, message):
    (tmp_path / "sets.gmt").write_text(text)
    with pytest.raises(ValueError, match=message):
        chosen_genes(CORPUS, f"{tmp_path}/sets.gmt:INTERFERONS")
