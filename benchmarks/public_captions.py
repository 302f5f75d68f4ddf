"""Captions for clusters of public cells, made of the Cell Ontology's descriptions and of marker genes.

    C2S_DATA=FOLDER python -m benchmarks.public_captions --output=FOLDER

No language model is asked: a caption is the type, the tissue and the three genes that mark the cluster, or the first
sentence of the Cell Ontology's extended description of the type (CC BY 4.0), where it has one, or both. Writes
``<data set>.jsonl``, one caption a line, as data_pipeline.build reads them; those of a language model have the same
form.
"""

import argparse
import csv
import json
import os
import re
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc

# Data set: file, column of clusters, tissue, and the ontology's term of each cluster that it describes.
SETS = {
    "pbmc3k": (
        "pbmc3k_full_labelled/pbmc3k_2638_full.h5ad",
        "classified",
        "blood",
        {"CD14+ Mono": "CL:0002057", "NK": "CL:0000938", "DC": "CL:0000451", "Platelet": "CL:0000233"}
        | {"CD8 T": "CL:0000625", "B": "CL:0000785"},
    ),
    "lymph_node": ("immune_lymphnode_ref_330/lymphnode_ref_330.h5ad", "cell_type", "lymph node", {}),
    "kang": (
        "kang_muscat_1556/kang_pbmc_ifnb_muscat_1556.h5ad",
        "cluster_id",
        "blood",
        {"CD14+ Monocytes": "CL:0002057", "CD8 T cells": "CL:0000625", "B cells": "CL:0000785"},
    ),
    "mouse_lung": (
        "lung_mouse_zilionis_800/zilionis_mouse_lung_800.h5ad",
        "Minor subset",
        "lung",
        dict.fromkeys(["N1", "N2", "N3", "N4", "N5", "N6"], "CL:0000775") | {"B cells": "CL:0000785"},
    ),
}
FEWEST = 3  # cells a cluster


def descriptions(path: Path) -> dict[str, str]:
    """First sentence of the ontology's description of each term."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["defined_class"]: re.split(r"(?<=[.])\s", row["desc"].strip(), maxsplit=1)[0] for row in rows}


def markers(path: Path, column: str) -> dict[str, list[str]]:
    """Three genes that mark each cluster against all others (Wilcoxon), of at least `FEWEST` cells."""
    adata = ad.read_h5ad(path)
    adata.obs[column] = adata.obs[column].astype(str).astype("category")
    sizes = adata.obs[column].value_counts()
    adata = adata[adata.obs[column].isin(sizes.index[sizes >= FEWEST])].copy()
    if float(np.max(adata.X)) > 30:  # counts
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, column, method="wilcoxon", n_genes=3)
    found = adata.uns["rank_genes_groups"]["names"]
    return {cluster: [str(gene).upper() for gene in found[cluster]] for cluster in found.dtype.names}


def captions(cluster: str, tissue: str, genes: list[str], description: str | None) -> list[str]:
    """One to three texts about a cluster."""
    plain = f"{cluster} cluster of {tissue}, marked by {', '.join(genes[:-1])} and {genes[-1]}."
    return [plain] if description is None else [plain, description, f"{plain} {description}"]


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    data = Path(os.environ.get("C2S_DATA", ""))
    if not os.environ.get("C2S_DATA") or not data.is_dir():
        sys.exit("error: name the folder of data sets in C2S_DATA")
    known = descriptions(data / "ontology_text" / "ExtendedDescription.tsv")
    given.output.mkdir(parents=True, exist_ok=True)
    for name, (file, column, tissue, terms) in SETS.items():
        lines = []
        for cluster, genes in markers(data / file, column).items():
            texts = captions(cluster, tissue, genes, known.get(terms.get(cluster, "")))
            lines += [json.dumps({"cluster": cluster, "caption": text}, ensure_ascii=False) for text in texts]
        (given.output / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(lines)} captions")


if __name__ == "__main__":
    main()
