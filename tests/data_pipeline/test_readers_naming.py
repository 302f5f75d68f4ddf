"""What genes are called, and which are read."""

import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from c2s_jax.cells.aliases import AliasTable
from data_pipeline.readers import GeneNaming, ReadError, open_cells, read_aliases
from data_pipeline.sources import Source
from tests.data_pipeline import cell_files as files


def cells(names: list[str], **var) -> ad.AnnData:
    """One cell a gene; gene i has the value i + 1 there."""
    obs, genes = pd.DataFrame(index=[f"c{i}" for i in range(len(names))]), pd.DataFrame(var, index=names)
    return ad.AnnData(sparse.diags(np.arange(1.0, len(names) + 1)).tocsr(), obs=obs, var=genes)


def values(table) -> list[float]:
    """The value of each gene."""
    return np.asarray(table.rows(0, table.n_cells).sum(axis=0)).ravel().tolist()


def test_symbols_come_from_a_column_where_the_index_has_identifiers():
    adata = cells(["ENSG00000000001", "ENSG00000000002"], feature_name=["ACTB", np.nan])
    with open_cells(adata) as table:
        assert table.symbols == ["ACTB", "ENSG00000000002"]
        assert "symbols are taken from var['feature_name']" in table.report[0]
    with pytest.raises(ReadError, match=r"mine: .*no column of var is known to hold symbols"):
        open_cells(cells(["ENSG00000000001"]), name="mine")


@pytest.mark.parametrize(
    ("names", "var", "prefix", "symbols", "kept"),
    [
        (["hg19_ACTB", "mm10_Actb", "hg19_CD4"], {}, "hg19", ["ACTB", "CD4"], [1, 3]),
        (["GRCh38_A", "mm10___b", "mm10___c"], {}, "mm10", ["b", "c"], [2, 3]),
        (
            ["ENSG00000000001", "ENSMUSG00000000001"],
            {"gene_symbols": ["ACTB", "Actb"]},
            "ENSMUSG",
            ["Actb"],
            [2],
        ),
        (["ACTB", "Actb"], {"gene_ids": ["ENSG00000000001", "ENSMUSG00000000001"]}, "ENSG", ["ACTB"], [1]),
        (["ACTB", "Actb"], {"genome": ["GRCh38", "mm10"]}, "mm10", ["Actb"], [2]),
        (
            ["hg19_ENSG00000000001", "mm10_ENSMUSG00000000001"],
            {"gene_symbols": ["hg19_ACTB", "mm10_Actb"]},
            "mm10",
            ["Actb"],
            [2],
        ),
    ],
)
def test_one_species_of_several(tmp_path, names, var, prefix, symbols, kept):
    adata = cells(names, **var)
    adata.write_h5ad(tmp_path / "barnyard.h5ad")
    for data in (adata, tmp_path / "barnyard.h5ad"):
        with pytest.raises(ReadError, match="genes of several species.*Choose one with genes_prefix="):
            open_cells(data)
        with open_cells(data, naming=GeneNaming(prefix=prefix)) as table:
            assert (table.symbols, values(table)) == (symbols, kept)
            assert len(table.var) == table.matrix.shape[1] == len(symbols)
    with pytest.raises(ReadError, match=r"barnyard\.h5ad: no gene is of genes_prefix='rn6'; there are"):
        open_cells(tmp_path / "barnyard.h5ad", naming=GeneNaming(prefix="rn6"))


def test_a_prefix_that_all_have_is_taken_off():
    with open_cells(cells(["hg19_ACTB", "hg19_CD4"])) as table:
        assert table.symbols == ["ACTB", "CD4"]
        assert table.report == ["names of genes lose the prefix hg19_"]


HGNC = """hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol
1\tSEPTIN9\tx\tApproved\t"MSF|KIAA0991"\tSEPT9
2\tTP53\tx\tApproved\tp53|LFS1\t
3\tACTB\tx\tApproved\t\t
4\tOLD\tx\tEntry Withdrawn\tACTX\t
5\tKMT2A\tx\tApproved\tMSF\t
"""


def test_table_of_hgnc(tmp_path):
    (tmp_path / "hgnc.txt.gz").write_bytes(gzip.compress(HGNC.encode()))
    table = read_aliases(tmp_path / "hgnc.txt.gz")
    assert dict(table) == {"KIAA0991": "SEPTIN9", "SEPT9": "SEPTIN9", "P53": "TP53", "LFS1": "TP53"}
    assert (table.approved, table.complete) == ({"SEPTIN9", "TP53", "ACTB", "KMT2A"}, True)
    assert table.ambiguous == {"MSF"}


def test_table_of_mgi_and_table_of_two_columns(tmp_path):
    head = "MGI Accession ID\tMarker Symbol\tMarker Synonyms (pipe-separated)"
    (tmp_path / "mgi.rpt").write_text(f"{head}\nMGI:1\tActb\tActx|beta-actin\nMGI:2\tCd4\t\n")
    assert dict(read_aliases(tmp_path / "mgi.rpt")) == {"ACTX": "Actb", "BETA-ACTIN": "Actb"}
    for text in ("SEPT9\tSEPTIN9\np53\tTP53\n", "alias\tsymbol\nSEPT9\tSEPTIN9\np53\tTP53\n"):
        (tmp_path / "two.tsv").write_text(text)
        table = read_aliases(tmp_path / "two.tsv")
        assert dict(table) == {"SEPT9": "SEPTIN9", "P53": "TP53"}
        assert not table.complete


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot be read as a table of gene aliases"),
        ("one\n", "no table of gene aliases: .*it has 1 columns"),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_tables_that_are_none(tmp_path, text, problem):
    (tmp_path / "t.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ReadError, match=rf"t\.tsv.*{problem}"):
        read_aliases(tmp_path / "t.tsv")
    with pytest.raises(FileNotFoundError, match="none.tsv"):
        read_aliases(tmp_path / "none.tsv")


@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_aliases_of_a_source(tmp_path, unknown):
    (tmp_path / "hgnc.txt").write_text(HGNC)
    adata = cells(["ACTB", "Sept9", "MSF", "LOC123", "p53"])
    source = Source(adata, "mine", aliases=read_aliases(tmp_path / "hgnc.txt"), unknown_genes=unknown)
    with source.open() as table:
        if unknown == "keep":
            assert (table.symbols, values(table)) == (["ACTB", "SEPTIN9", "MSF", "LOC123", "TP53"], [1, 2, 3, 4, 5])
            assert table.report == [
                "2 genes get their approved symbol: Sept9 → SEPTIN9, p53 → TP53",
                "1 aliases of several symbols keep their name: MSF",
                "2 of 5 names are no approved symbols: MSF, LOC123",
            ]
        else:
            assert (table.symbols, values(table)) == (["ACTB", "SEPTIN9", "TP53"], [1, 2, 5])
            assert table.report[-1] == "names that are no approved symbols are left out: MSF, LOC123"


def test_unknown_genes_can_be_dropped_only_if_all_others_are_known(tmp_path):
    (tmp_path / "two.tsv").write_text("SEPT9\tSEPTIN9\n")
    for aliases in ({}, {"SEPT9": "SEPTIN9"}, read_aliases(tmp_path / "two.tsv")):
        with pytest.raises(ReadError, match="mine: unknown_genes='drop' needs aliases with all approved symbols"):
            Source(cells(["ACTB", "SEPT9"]), "mine", aliases=aliases, unknown_genes="drop").open()
    without_aliases = AliasTable.of([], ["ACTB"])
    with Source(cells(["ACTB", "LOC1"]), "mine", aliases=without_aliases, unknown_genes="drop").open() as table:
        assert table.symbols == ["ACTB"]


def test_genes_left_out_are_left_out_of_samples_and_alternatives_too():
    adata = cells(["ACTB", "LOC1"])
    adata.layers["bad"] = np.array([[1, -1.0], [1, -1.0]])
    table = read_aliases_of(["ACTB"])
    with open_cells(adata, naming=GeneNaming(aliases=table, unknown="drop")) as opened:
        assert opened.sample(2).shape == (2, 1)
        assert "bad" in opened.usable_instead()


def read_aliases_of(symbols):
    return AliasTable.of([("OLDER", symbols[0])], symbols)


def test_no_gene_left(tmp_path):
    with pytest.raises(ReadError, match="cells: no gene is left: features that are not Gene Expression"):
        open_cells(files.tenx_v3(tmp_path, kinds=["Antibody Capture"] * files.N_GENES).rename(tmp_path / "cells"))
