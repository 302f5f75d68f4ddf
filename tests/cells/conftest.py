"""Real cells: the 700 PBMCs in scanpy's wheel."""

import anndata as ad
import pytest
import scanpy as sc


@pytest.fixture(scope="session")
def pbmc_session() -> ad.AnnData:
    return sc.datasets.pbmc68k_reduced()


@pytest.fixture
def pbmc(pbmc_session: ad.AnnData) -> ad.AnnData:
    """`.X` is scaled, `.raw` is natural log1p of normalised counts."""
    return pbmc_session.copy()
