"""PBMCs with and without interferon beta (Kang et al. 2018, doi:10.1038/nbt.4042), made ready for a corpus.

Two cell types under interferon are held out altogether, two more in one of the two donors each, as Dong's levels are:
nothing of a held-out condition is seen, or the condition in another donor only.
"""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc
import yaml

SOURCE = "kang_muscat_1556/kang_pbmc_ifnb_muscat_1556.h5ad"
SETS = "genesets_msigdb/h.all.v7.5.1.symbols.gmt"
INTERFERON = "HALLMARK_INTERFERON_ALPHA_RESPONSE+HALLMARK_INTERFERON_GAMMA_RESPONSE"
TREATED, CONTROL = "interferon beta", "control"
HELD_OUT: list[dict[str, Any]] = [
    {"cell_type": ["CD8 T cells", "FCGR3A+ Monocytes"], "perturbation": [TREATED]},
    {"cell_type": ["B cells"], "perturbation": [TREATED], "donor": ["107"]},
    {"cell_type": ["CD4 T cells"], "perturbation": [TREATED], "donor": ["101"]},
]


def prepare(data: Path, folder: Path, genes: int = 120) -> Path:
    """Write ``kang.h5ad`` with the genes most variable in cells that are not held out, and its manifest; the latter."""
    cells = ad.read_h5ad(data / SOURCE)
    cells.var_names = [name.split("_ENSG")[0] for name in cells.var_names]  # HLA-A_ENSG00000206503
    cells.obs["perturbation"] = np.where(cells.obs["group_id"] == "stim", TREATED, CONTROL)
    cells.obs["cell_type"] = cells.obs["cluster_id"].astype(str)
    cells.obs["donor"] = cells.obs["donor"].astype(str)
    known = cells[~held_out(cells)].copy()
    sc.pp.normalize_total(known)
    sc.pp.log1p(known)
    sc.pp.highly_variable_genes(known, n_top_genes=genes)
    kept = cells[:, known.var["highly_variable"].to_numpy()].copy()
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_h5ad(folder / "kang.h5ad")
    columns = {name: name for name in ("cell_type", "perturbation", "donor")}
    entry = {"path": "kang.h5ad", "organism": "human", "columns": columns, "constants": {"tissue": "blood"}}
    manifest = {
        "datasets": [entry | {"control": CONTROL}],
        "split": "90/10/0",
        "held_out": HELD_OUT,
    }
    path = folder / "kang.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return path


def held_out(cells: ad.AnnData) -> np.ndarray:
    """Cells of a held-out condition, bool [C]."""
    found = np.zeros(cells.n_obs, bool)
    for condition in HELD_OUT:
        found |= np.logical_and.reduce([cells.obs[name].isin(values).to_numpy() for name, values in condition.items()])
    return found
