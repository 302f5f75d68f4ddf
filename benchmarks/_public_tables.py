"""Public data sets that need a few lines of pandas before a corpus is built of them."""

import gzip
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

SCMIXOLOGY = ("sc_celseq2", "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3", "sc_dropseq")
ABSENT = "-666"  # in LINCS files


def prepare(data: Path, folder: Path) -> None:
    """Write those that `data` has as ``.h5ad`` files into `folder`."""
    for name, read, source in (
        ("scmixology.h5ad", scmixology, data / "lung_cancer_lines_scmixology"),
        ("gbm_panobinostat.h5ad", unique, data / "perturb_gbm_panobinostat" / "gbm_panobinostat_5000x300.h5ad"),
        ("l1000_level3.h5ad", gct, data / "l1000_landmarks" / "test_l1000.gct"),
    ):
        if source.exists():
            read(source).write_h5ad(folder / name)


def unique(path: Path) -> ad.AnnData:
    """Cells of several samples, two of which have the same barcode."""
    adata = ad.read_h5ad(path)
    adata.obs_names = adata.obs["sample_id"].astype(str) + "_" + adata.obs_names
    return adata


def scmixology(folder: Path) -> ad.AnnData:
    """Five tables of counts, genes × cells, named by Ensembl ids; symbols come from HGNC's table beside the folder."""
    with gzip.open(folder.parent / "hgnc" / "hgnc_complete_set.txt.gz", "rt", encoding="utf-8") as file:
        hgnc = pd.read_csv(file, sep="\t", usecols=["symbol", "ensembl_gene_id"], dtype=str)
    symbol = hgnc.dropna().drop_duplicates("ensembl_gene_id").set_index("ensembl_gene_id")["symbol"]
    parts = []
    for name in SCMIXOLOGY:
        counts = pd.read_csv(folder / f"{name}.count.csv.gz", index_col=0).T
        obs = pd.read_csv(folder / f"{name}.metadata.csv.gz", index_col=0).loc[counts.index, ["cell_line_demuxlet"]]
        obs["assay"] = "Drop-seq" if "drop" in name else "CEL-seq2"
        obs.index = name + "_" + obs.index.astype(str)
        matrix = sparse.csr_matrix(counts.to_numpy(np.float32))
        parts.append(ad.AnnData(matrix, obs=obs.assign(batch=name), var=pd.DataFrame(index=counts.columns)))
    whole = ad.concat(parts, join="outer", fill_value=0)
    whole.var["symbol"] = symbol.reindex(whole.var_names).to_numpy()
    return whole[:, whole.var["symbol"].notna()].copy()


def gct(path: Path) -> ad.AnnData:
    """A GCT 1.3 file of LINCS, genes × profiles, with its annotation."""
    n_genes, n_profiles, var_columns, obs_rows = map(int, path.read_text("latin-1").split("\n", 2)[1].split("\t"))
    table = pd.read_csv(path, sep="\t", skiprows=2, dtype=str, index_col=0, encoding="latin-1", keep_default_na=False)
    profiles = table.columns[var_columns:]
    obs = table.iloc[:obs_rows][profiles].T.replace(ABSENT, "")
    var = table.iloc[obs_rows:, :var_columns].set_index("pr_gene_symbol")
    values = table.iloc[obs_rows:][profiles].T.to_numpy(np.float32)
    assert values.shape == (n_profiles, n_genes)
    return ad.AnnData(values, obs=obs, var=var)
