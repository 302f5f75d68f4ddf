"""Build a corpus from AnnData files.

    python -m data_pipeline.build --input='data/*.h5ad' --output=corpus --label_column=cell_type

A corpus is one directory that any number of files goes into, and that TFDS opens without TensorFlow. It
appears under its name only when it is whole; after an interruption, run the same command again.
"""

import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from c2s_jax.data import corpus_format as fmt
from c2s_jax.data.corpus import Corpus
from data_pipeline.assemble import build_corpus
from data_pipeline.sources import BUNDLED

__all__ = ["build_corpus"]


def _parse_split(text: str) -> tuple[float, ...]:
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != len(fmt.SPLITS) or sum(parts) <= 0:
        raise ValueError(f"--split={text}: expected train/validation/test, for instance 70/10/20")
    return tuple(part / sum(parts) for part in parts)


def _parse_pairs(flag: str, items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for item, (key, _, value) in zip(items, pairs, strict=True):
        if not key or not value:
            raise ValueError(f"--{flag}: {item!r} is not of the form field=value")
    return {key: value for key, _, value in pairs}


def _inputs(values: flags.FlagValues) -> list[Any]:
    if values.bundled:
        return [BUNDLED[values.bundled]()]
    paths = [path for pattern in values.input for path in sorted(glob.glob(pattern, recursive=True))]
    unmatched = [pattern for pattern in values.input if not glob.glob(pattern, recursive=True)]
    if unmatched:
        raise FileNotFoundError(f"--input: nothing matches {unmatched[0]!r}")
    return list(dict.fromkeys(paths))


def run(values: flags.FlagValues) -> Path:
    """Build the corpus that the options describe; return its directory."""
    columns = _parse_pairs("columns", values.columns)
    if values.label_column:
        columns["cell_type"] = values.label_column
    return build_corpus(
        _inputs(values),
        values.output,
        organism=values.organism,
        obs_columns=columns,
        constants=_parse_pairs("constants", values.constants),
        split=_parse_split(values.split),
        stratify=values.stratify or None,
        seed=values.seed,
        layer=values.layer,
        use_raw=values.use_raw,
        gene_column=values.gene_column,
        scale=values.scale,
        target_sum=values.target_sum,
        duplicates=values.duplicates,
        top_k=values.top_k,
        ties=values.ties,
        progress=sys.stderr.isatty(),
    )


def main(argv: Sequence[str]) -> None:
    """Command line entry point."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}; options begin with --")
    try:
        output = run(flags.FLAGS)
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"error: {error.args[-1] if error.args else error}")
    corpus = Corpus(output)
    print(corpus)
    for dataset in corpus.datasets:
        fit = dataset["rank_expression"]
        print(f"  {dataset['name']}: rank→expression R² {fit['r2']:.3f}; {dataset['counts']}")
        for line in dataset["provenance"]["report"]:
            print(f"    {line}")


def define_flags(values: flags.FlagValues) -> None:
    """Declare the options of the command."""
    kept: Any = {"flag_values": values}
    flags.DEFINE_list("input", [], "Files or patterns (quote them), e.g. 'data/*.h5ad'.", **kept)
    flags.DEFINE_enum("bundled", None, list(BUNDLED), "Use a data set of the installed packages.", **kept)
    flags.DEFINE_string("output", None, "Directory to create.", required=True, **kept)
    flags.DEFINE_string("label_column", None, "Column of obs with the cell type.", **kept)
    flags.DEFINE_list("columns", [], "Further columns: field=column, …", **kept)
    flags.DEFINE_list("constants", [], "Fields with one value for all cells: field=value, …", **kept)
    flags.DEFINE_string("organism", "", "Organism, e.g. human.", **kept)
    flags.DEFINE_string("split", "70/10/20", "Shares of train/validation/test.", **kept)
    flags.DEFINE_string("stratify", "cell_type", "Field to stratify by; empty for none.", **kept)
    flags.DEFINE_integer("seed", 0, "Seed of the split and of ties.", **kept)
    flags.DEFINE_string("layer", None, "Layer that holds the expression.", **kept)
    flags.DEFINE_bool("use_raw", None, "Read adata.raw.", **kept)
    flags.DEFINE_string("gene_column", None, "Column of var with gene symbols.", **kept)
    flags.DEFINE_enum("scale", "auto", ["auto", "counts", "normalized", "log1p", "log10p"], "Scale of values.", **kept)
    flags.DEFINE_float("target_sum", None, "Total of a cell after normalisation; default: median.", **kept)
    flags.DEFINE_enum("duplicates", "error", ["error", "sum"], "Genes of equal upper-cased name.", **kept)
    flags.DEFINE_integer("top_k", None, "Store only the first genes of each cell.", **kept)
    flags.DEFINE_enum("ties", "hash", ["hash", "cell2sentence"], "How ties are broken.", **kept)


if __name__ == "__main__":
    # Not at import: whoever imports `build_corpus` has flags of their own.
    define_flags(flags.FLAGS)
    app.run(main)
