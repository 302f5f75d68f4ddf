"""Questions of single-cell papers, made ready for two corpora: of SFT, and of GRPO with the test.

BaisBench (github.com/EperLuo/BaisBench, its second task) has 193 multiple-choice questions about 41 single-cell papers.
They are asked without choices; the answer is the text of what is right. Two papers of five are for SFT, the others for
GRPO and the test. The studies' cells are not to be had: cells of public data sets, of the same tissue or the nearest,
stand in, so that nothing about a study can be read off its cells.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import yaml

from benchmarks import _public_tables

SOURCE = "text_baisbench/BAISBench_task2.xlsx"
GLIOBLASTOMA = "perturb_gbm_panobinostat/gbm_panobinostat_5000x300.h5ad"
CELLS, GENES = 30, 200  # of a stand-in: cells a study, most variable genes
FIRST = (0, 2)  # of each five papers, for SFT

Pairs = list[tuple[str, str]]
# Words of a text, and what stands in for its cells: the first that fits.
TISSUES = {
    "brain": r"brain|neur|retina|striat|cortex|cortical|glia|cogniti|stroke|spinal",
    "kidney": r"kidney|renal|nephr|bladder|prostat|urin",
    "lung": r"lung|airway|pulmon|bronch|respirat|asthma|smok",
    "lymph node": r"lymph node|thym|spleen|tonsil|lymphadenopathy",
    "blood": r"blood|pbmc|leuk|lymphom|monocyt|t cell|immun|haemat|hemat|serum|plasma|infect",
}
OTHERWISE = "epithelium"


def prepare(data: Path, folder: Path) -> tuple[Path, Path]:
    """Write cells, questions and the manifests of both corpora, of SFT and of GRPO with the test; the manifests."""
    folder.mkdir(parents=True, exist_ok=True)
    pools = stand_ins(data)
    papers = [(f"paper_{i:02}", *paper) for i, paper in enumerate(read(data / SOURCE))]
    first = [paper for i, paper in enumerate(papers) if i % 5 in FIRST]
    second = [paper for i, paper in enumerate(papers) if i % 5 not in FIRST]
    paths = []
    for name, studies, split in (("first", first, "90/10/0"), ("second", second, "42/2/56")):
        entries = [study(folder, pools, *found) for found in studies]
        manifest = {"defaults": {"organism": "human"}, "datasets": entries, "split": split}
        manifest |= {"split_by": "dataset", "stratify": ""}
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(manifest, sort_keys=False))
    words = (text for _, _, pairs in first for pair in pairs for text in pair)
    (folder / "words.txt").write_text("\n".join(words) + "\n")
    return paths[0], paths[1]


def read(path: Path) -> Iterator[tuple[str, Pairs]]:
    """Tissue, and questions with their answers, of each paper."""
    for _, row in pd.read_excel(path).iterrows():
        asked = [(row[f"Questions{i}"], row[f"Answer{i}"]) for i in range(1, 6)]
        pairs = [without_choices(q, a) for q, a in asked if isinstance(q, str) and q.strip()]
        yield tissue_of(str(row["background"])), pairs


def without_choices(question: str, answer: str) -> tuple[str, str]:
    """A question in words, and its answer: the text of the right choices instead of their letters."""
    stem, *rest = re.split(r"\s+([A-H])[).]\s*", question.strip())
    choices = dict(zip(rest[::2], rest[1::2]))
    right = [choices[letter] for letter in re.findall(r"\b([A-H])\)", answer)]
    if len(right) == 1 and (both := re.fullmatch(r"Both ([A-H]) and ([A-H])", right[0])):
        right = [choices[letter] for letter in both.groups()]
    return " ".join(stem.split()), "; ".join(" ".join(text.split()).removesuffix(".") for text in right)


def tissue_of(text: str) -> str:
    """By words of a text."""
    found = (tissue for tissue, words in TISSUES.items() if re.search(rf"\b({words})", text.lower()))
    return next(found, OTHERWISE)


def study(folder: Path, pools: dict[str, ad.AnnData], name: str, tissue: str, pairs: Pairs) -> dict[str, Any]:
    """Write some cells of a tissue, which are used up thereby, and a study's questions; its entry in a manifest."""
    pools[tissue][:CELLS].copy().write_h5ad(folder / f"{name}.h5ad")
    pools[tissue] = pools[tissue][CELLS:].copy()
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in pairs]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    entry = {"path": f"{name}.h5ad", "questions": f"{name}.jsonl"}
    return entry if tissue == OTHERWISE else entry | {"constants": {"tissue": tissue}}


def stand_ins(data: Path) -> dict[str, ad.AnnData]:
    """Counts of cells of a public data set for each tissue."""
    readers: dict[str, Callable[[], ad.AnnData]] = {
        "brain": lambda: by_symbol(_public_tables.unique(data / GLIOBLASTOMA)),
        "kidney": lambda: ad.read_h5ad(data / "spatial_cosmx_kidney" / "cosmx_kidney_11genes.h5ad"),
        "lymph node": lambda: ad.read_h5ad(data / "immune_lymphnode_ref_330" / "lymphnode_ref_330.h5ad"),
        "blood": lambda: ad.read_h5ad(data / "pbmc3k_full_labelled" / "pbmc3k_2638_full.h5ad"),
        "lung": lambda: lavage(sorted((data / "lung_balf_covid_liao").glob("*.h5"))),
        OTHERWISE: lambda: by_symbol(_public_tables.scmixology(data / "lung_cancer_lines_scmixology")),
    }
    return {tissue: variable(cells()) for tissue, cells in readers.items()}


def lavage(paths: Sequence[Path]) -> ad.AnnData:
    """Cells of the first file with at least 200 genes."""
    cells = sc.read_10x_h5(paths[0])
    cells.var_names_make_unique()
    sc.pp.filter_cells(cells, min_genes=200)
    return cells


def by_symbol(cells: ad.AnnData) -> ad.AnnData:
    """Named by the column of symbols, the first of each."""
    cells = cells[:, ~cells.var["symbol"].duplicated()].copy()
    cells.var_names = cells.var["symbol"].astype(str)
    return cells


def variable(cells: ad.AnnData) -> ad.AnnData:
    """The most variable genes, all where there are no more, in random order the cells that express at least ten."""
    counts = ad.AnnData(cells.X, obs=pd.DataFrame(index=cells.obs_names), var=pd.DataFrame(index=cells.var_names))
    if counts.n_vars > GENES:
        logs = counts.copy()
        sc.pp.normalize_total(logs)
        sc.pp.log1p(logs)
        sc.pp.highly_variable_genes(logs, n_top_genes=GENES)
        counts = counts[:, logs.var["highly_variable"].to_numpy()].copy()
    expressed = np.asarray((counts.X > 0).sum(1)).ravel()
    kept = np.flatnonzero(expressed >= min(10, counts.n_vars // 3))
    return counts[np.random.default_rng(0).permutation(kept)].copy()
