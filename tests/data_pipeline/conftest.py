"""A corpus built from the cells in scanpy's wheel."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy
from scipy import sparse

from data_pipeline.build import build_corpus
from data_pipeline.sources import pbmc68k_reduced


@pytest.fixture(scope="session")
def pbmc() -> ad.AnnData:
    return scanpy.datasets.pbmc68k_reduced()


@pytest.fixture(scope="session")
def pbmc_corpus(tmp_path_factory) -> Path:
    return build_corpus(pbmc68k_reduced(), tmp_path_factory.mktemp("pbmc") / "corpus")


@pytest.fixture
def make_adata():
    """Function that makes a small data set of counts."""

    def make(n_cells: int = 60, n_genes: int = 30, seed: int = 0, first_gene: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        # Genes of different abundance, so that expression falls with rank.
        counts = rng.poisson(rng.lognormal(0, 1.5, n_genes), (n_cells, n_genes)).astype(np.float32)
        counts[:, 0] += 1
        adata = ad.AnnData(sparse.csr_matrix(counts))
        adata.obs_names = [f"cell{seed}_{i}" for i in range(n_cells)]
        adata.var_names = [f"Gene{first_gene + i}" for i in range(n_genes)]
        adata.obs["label"] = [f"type {i % 3}" for i in range(n_cells)]
        adata.obs["patient"] = [f"donor {i % 2}" for i in range(n_cells)]
        adata.obs["years"] = np.where(np.arange(n_cells) % 5 == 0, np.nan, 40.0)
        return adata

    return make
