"""Options of ``python -m data_pipeline.build``: the settings of a manifest with one data set."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from c2s_jax.cells.scales import SCALES
from data_pipeline.readers import FORMATS
from data_pipeline.sources import BUNDLED

_SAME = (
    "organism", "format", "layer", "use_raw", "gene_column", "genes_prefix", "aliases", "unknown_genes", "scale",
    "target_sum", "duplicates",
)  # fmt: skip
_QC = ("min_genes", "min_cells")
_SPATIAL = {"spatial_key": "key", "radius": "radius", "spatial_unit": "unit", "section": "section"}
_BUILD = (
    "split", "split_by", "tile_side", "stratify", "seed", "top_k", "ties", "duplicates_cells", "gene_sets",
    "interactions", "extracellular",
)  # fmt: skip

DATASET_FLAGS = ("label_column", "columns", "constants", *_SAME, *_QC, *_SPATIAL)
"""Options that belong to a data set."""
RUN_FLAGS = ("workers", "runner", "unit_cells")
"""Options of how the work is done, which change nothing in the corpus."""


def dataset_settings(values: flags.FlagValues) -> dict[str, Any]:
    """Settings as of an entry of a manifest."""
    columns = _pairs("columns", values.columns)
    if values.label_column:
        columns["cell_type"] = values.label_column
    settings = {"path": values.input, "columns": columns, "constants": _pairs("constants", values.constants)}
    settings |= {name: values[name].value for name in _SAME if values[name].present}
    settings["qc"] = {name: values[name].value for name in _QC if values[name].present}
    settings["spatial"] = {key: values[name].value for name, key in _SPATIAL.items() if values[name].present}
    return settings


def build_settings(values: flags.FlagValues) -> dict[str, Any]:
    """Settings as of a manifest, those that were given."""
    return {name: values[name].value for name in _BUILD if values[name].present}


def _pairs(flag: str, items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for item, (key, _, value) in zip(items, pairs, strict=True):
        if not key or not value:
            raise ValueError(f"--{flag}: {item!r} is not of the form field=value")
    return {key: value for key, _, value in pairs}


def define_flags(values: flags.FlagValues) -> None:
    """Declare the options of the command."""
    _define_inputs(values)
    _define_build(values)


def _define_inputs(values: flags.FlagValues) -> None:
    kept: Any = {"flag_values": values}
    flags.DEFINE_string("manifest", None, "File with many data sets and their settings, see docs/data.md.", **kept)
    flags.DEFINE_list("input", [], "Files, folders or patterns (quote them), e.g. 'data/*.h5ad'.", **kept)
    flags.DEFINE_enum("bundled", None, list(BUNDLED), "Use a data set of the installed packages.", **kept)
    flags.DEFINE_enum("format", None, list(FORMATS), "Format of the files; by default found out.", **kept)
    flags.DEFINE_string("label_column", None, "Column of obs with the cell type.", **kept)
    flags.DEFINE_list("columns", [], "Further columns: field=column, …", **kept)
    flags.DEFINE_list("constants", [], "Fields with one value for all cells: field=value, …", **kept)
    flags.DEFINE_string("organism", "", "Organism, e.g. human.", **kept)
    flags.DEFINE_string("layer", None, "Layer that holds the expression.", **kept)
    flags.DEFINE_bool("use_raw", None, "Read adata.raw.", **kept)
    flags.DEFINE_string("gene_column", None, "Column of var with gene symbols.", **kept)
    flags.DEFINE_string("genes_prefix", None, "Species to read where there are several, e.g. GRCh38 or ENSG.", **kept)
    flags.DEFINE_string("aliases", None, "Table of gene aliases, e.g. HGNC's complete set.", **kept)
    flags.DEFINE_enum("unknown_genes", "keep", ["keep", "drop"], "Genes that the table of aliases lacks.", **kept)
    flags.DEFINE_enum("scale", "auto", list(SCALES), "Scale of values.", **kept)
    flags.DEFINE_float("target_sum", None, "Total of a cell after normalisation; default: median.", **kept)
    flags.DEFINE_enum("duplicates", "error", ["error", "sum"], "Genes of equal upper-cased name.", **kept)
    flags.DEFINE_integer("min_genes", 0, "Leave out cells with fewer expressed genes.", **kept)
    flags.DEFINE_integer("min_cells", 0, "Leave out genes that fewer cells express.", **kept)
    flags.DEFINE_string("spatial_key", None, "Key of obsm with positions in space.", **kept)
    flags.DEFINE_float("radius", None, "Cells within it are neighbours.", **kept)
    flags.DEFINE_string("spatial_unit", "", "Unit of positions and radius, e.g. µm.", **kept)
    flags.DEFINE_string("section", None, "Column of obs: sections or fields of view with own positions.", **kept)


def _define_build(values: flags.FlagValues) -> None:
    kept: Any = {"flag_values": values}
    flags.DEFINE_string("output", None, "Directory to create.", **kept)
    flags.DEFINE_bool("dry_run", False, "Tell what would be built and what is wrong, and build nothing.", **kept)
    flags.DEFINE_alias("dry-run", "dry_run", **kept)
    flags.DEFINE_string("split", "70/10/20", "Shares of train/validation/test.", **kept)
    flags.DEFINE_string("split_by", "cell", "What stays together: cell, dataset, tile, or a field.", **kept)
    flags.DEFINE_float("tile_side", None, "Side of a tile, in the unit of the positions.", **kept)
    flags.DEFINE_string("stratify", "cell_type", "Field to stratify by; empty for none.", **kept)
    flags.DEFINE_integer("seed", 0, "Seed of the split and of ties.", **kept)
    flags.DEFINE_integer("top_k", None, "Store only the first genes of each cell.", **kept)
    flags.DEFINE_enum("ties", "hash", ["hash", "cell2sentence"], "How ties are broken.", **kept)
    flags.DEFINE_enum("duplicates_cells", "report", ["report", "drop", "error"], "Copies of cells.", **kept)
    flags.DEFINE_list("gene_sets", [], "GMT files.", **kept)
    flags.DEFINE_list("interactions", [], "Files of interactions between genes.", **kept)
    flags.DEFINE_string("extracellular", None, "File of genes; keep interactions of these alone.", **kept)
    flags.DEFINE_integer("workers", 1, "Processes.", **kept)
    flags.DEFINE_string("runner", None, "Apache Beam runner, e.g. direct; Beam's options after --.", **kept)
    flags.DEFINE_integer("unit_cells", 65_536, "Cells of a data set that are written together.", **kept)
