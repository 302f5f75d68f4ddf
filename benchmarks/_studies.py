"""Public studies whose cells are at hand: what their README and their annotation say of them, in a few fields."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import scanpy as sc

from benchmarks._public_tables import scmixology, unique


@dataclass(frozen=True)
class Study:
    """A data set and its facts.

    Attributes
    ----------
    path
        In the folder of data sets.
    tissue
        As the corpus has it; those of ``HELD_OUT`` are for the test alone.
    subject, technology, donors, design
        Parts of sentences: "<subject> by <technology>", "cells of <donors>" (or nothing known), and one that stands
        alone.
    columns
        Columns of ``obs``: type and donor, where there are.
    read
        From the path; by default an h5ad file.
    """

    path: str
    tissue: str
    subject: str
    technology: str
    donors: str
    design: str
    columns: tuple[str, str] = ("", "")
    organism: str = "human"
    read: Callable[[Path], ad.AnnData] = ad.read_h5ad


def lavage(folder: Path) -> ad.AnnData:
    """Three files of Cell Ranger, a patient each."""
    parts = {}
    for path in sorted(folder.glob("*.h5")):
        cells = sc.read_10x_h5(path)
        cells.var_names_make_unique()
        sc.pp.filter_cells(cells, min_genes=200)
        parts[path.name.split("_")[1]] = cells
    return ad.concat(parts, label="patient", index_unique="-")


def mixture(assay: str) -> Callable[[Path], ad.AnnData]:
    """The lung cancer lines by one of the two methods, genes by symbol."""

    def read(folder: Path) -> ad.AnnData:
        cells = scmixology(folder)
        cells = cells[cells.obs["assay"] == assay].copy()
        cells.var_names = cells.var["symbol"].to_numpy(str)
        cells.var_names_make_unique()
        return cells

    return read


def in_place(path: Path) -> ad.AnnData:
    """Cells of an image that its authors kept."""
    cells = ad.read_h5ad(path)
    return cells[cells.obs["Valid"] == 1].copy()


def by_symbol(path: Path) -> ad.AnnData:
    """Cells of several samples whose genes are named by Ensembl ids."""
    cells = unique(path)
    cells.var_names = cells.var["symbol"].to_numpy(str)
    cells.var_names_make_unique()
    return cells


LINES = "lung_cancer_lines_scmixology"
STUDIES = {
    "pbmc3k": Study(
        "pbmc3k_full_labelled/pbmc3k_2638_full.h5ad",
        "blood",
        "human peripheral blood mononuclear cells",
        "10x Genomics droplet sequencing",
        "one donor",
        "The cells are a common reference for immune cells in circulation",
        ("classified", ""),
    ),
    "pbmc_chemistries": Study(
        "pbmc_symphony_1200/pbmc_symphony_1200.h5ad",
        "blood",
        "human peripheral blood mononuclear cells",
        "three 10x Genomics chemistries",
        "three libraries",
        "Two versions of the 3' chemistry and the 5' chemistry are set side by side to ask how well they integrate",
        ("cell_type", "donor"),
    ),
    "interferon_two_donors": Study(
        "kang_muscat_1556/kang_pbmc_ifnb_muscat_1556.h5ad",
        "blood",
        "human peripheral blood mononuclear cells under interferon beta",
        "multiplexed droplet sequencing",
        "two donors",
        "Half of the cells were treated with interferon beta and half were left as controls",
        ("cluster_id", "donor"),
    ),
    "interferon_eight_donors": Study(
        "kang_harmony_2000/kang_pbmc_ifnb_2000.h5ad",
        "blood",
        "human peripheral blood mononuclear cells under interferon beta",
        "multiplexed droplet sequencing, with donors told apart by their genotypes",
        "eight donors",
        "A thousand stimulated cells face a thousand unstimulated ones, and interferon-stimulated genes rise",
        ("muscat_label", "donor"),
    ),
    "covid_lavage": Study(
        "lung_balf_covid_liao",
        "bronchoalveolar lavage fluid",
        "human bronchoalveolar lavage fluid in COVID-19",
        "10x Genomics droplet sequencing",
        "three patients",
        "Fluid from the lungs of infected patients was sampled to see their immune cells, and receptors were read too",
        ("", "patient"),
        read=lavage,
    ),
    "mouse_lung_tumour": Study(
        "lung_mouse_zilionis_800/zilionis_mouse_lung_800.h5ad",
        "lung",
        "mouse lungs with and without a tumour",
        "single-cell RNA sequencing",
        "four animals",
        "Immune cells of tumour-bearing lungs are compared with those of healthy ones",
        ("Major cell type", "Animal"),
        organism="mouse",
    ),
    "lines_cel_seq2": Study(
        LINES,
        "lung",
        "human lung adenocarcinoma cell lines",
        "plate-based CEL-seq2",
        "five cell lines that were mixed",
        "The lines were mixed so that each cell's identity is known and methods can be benchmarked",
        ("cell_line_demuxlet", ""),
        read=mixture("CEL-seq2"),
    ),
    "lines_drop_seq": Study(
        LINES,
        "lung",
        "human lung adenocarcinoma cell lines",
        "Drop-seq",
        "three cell lines that were mixed",
        "The lines were mixed so that each cell's identity is known and methods can be benchmarked",
        ("cell_line_demuxlet", ""),
        read=mixture("Drop-seq"),
    ),
    "crispr_monocytes": Study(
        "perturb_crispr_thp1_lowmoi/thp1_crispr_lowmoi_20729x299.h5ad",
        "monocytic cell line",
        "the human monocytic cell line THP-1",
        "single-cell sequencing with guide capture",
        "three replicates",
        "Guides against 25 genes, some of the interferon gamma pathway, perturb the cells one gene at a time",
        ("", "bio_rep"),
    ),
    "mouse_cortex": Study(
        "spatial_osmfish_cortex/osmfish_mouse_cortex_6471.h5ad",
        "somatosensory cortex",
        "mouse somatosensory cortex",
        "imaging of RNA molecules in place (osmFISH)",
        "",
        "The layers of the cortex, white matter and hippocampus are mapped with cells in their places",
        ("ClusterName", ""),
        organism="mouse",
        read=in_place,
    ),
    "kidney_in_space": Study(
        "spatial_cosmx_kidney/cosmx_kidney_11genes.h5ad",
        "kidney",
        "human kidney tissue",
        "imaging of RNA molecules in place (CosMx)",
        "two fields of view",
        "Tubules, glomeruli and vessels are mapped with cells in their places",
        ("celltype", ""),
    ),
    "lymph_node": Study(
        "immune_lymphnode_ref_330/lymphnode_ref_330.h5ad",
        "lymph node",
        "human lymphoid tissue",
        "single-cell RNA sequencing",
        "a reference of 11 populations",
        "Thirty cells of each population were kept, to take spots of spatial data apart",
        ("cell_type", ""),
    ),
    "glioblastoma": Study(
        "perturb_gbm_panobinostat/gbm_panobinostat_5000x300.h5ad",
        "brain tumour",
        "human glioblastoma of grade IV",
        "single-cell RNA sequencing",
        "five patients",
        "Half of the cells were treated with 0.2 uM panobinostat and half with the vehicle DMSO",
        ("", "patient_id"),
        read=by_symbol,
    ),
}
HELD_OUT = ("lymph node", "brain tumour")  # tissues that no other study has
