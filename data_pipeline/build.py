"""Build a corpus from cells in files.

    python -m data_pipeline.build --input='data/*.h5ad' --output=corpus --label_column=cell_type
    python -m data_pipeline.build --manifest=corpus.yaml --output=corpus --dry-run
    python -m data_pipeline.build --manifest=corpus.yaml --output=corpus --runner=direct -- --direct_num_workers=4

A corpus is one directory that any number of files goes into, and that TFDS opens without TensorFlow. It
appears under its name only when it is whole; after an interruption, run the same command again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from c2s_jax.data.corpus import Corpus
from data_pipeline.assemble import build_corpus
from data_pipeline.build_flags import DATASET_FLAGS, RUN_FLAGS, build_settings, dataset_settings, define_flags
from data_pipeline.dry_run import dry_run
from data_pipeline.manifest import Manifest, ManifestError, build_options, make_sources, read_manifest
from data_pipeline.sources import BUNDLED

__all__ = ["build_corpus", "define_flags"]


def planned(values: flags.FlagValues) -> Manifest:
    """What the options ask for, with everything that is wrong with it."""
    asked = build_settings(values)
    astray = [name for name in (*DATASET_FLAGS, "input", "bundled") if values[name].present]
    if values.manifest:
        if astray:
            raise ValueError(f"--{astray[0]} is said in the manifest: write it there, or leave --manifest out")
        manifest = read_manifest(values.manifest)
        options, problems = build_options(asked, Path(), "--")
        return Manifest(manifest.sources, manifest.options | options, manifest.problems + problems)
    options, problems = build_options(asked, Path(), "--")
    if values.bundled:
        if astray != ["bundled"]:
            raise ValueError(f"--{astray[0]} is given, but bundled cells have settings of their own: leave one out")
        return Manifest([BUNDLED[values.bundled]()], options, problems)
    sources, more = make_sources(dataset_settings(values), Path(), "--", "input")
    return Manifest(sources, options, problems + more)


def run(values: flags.FlagValues, beam_options: Sequence[str] = ()) -> Path:
    """Build the corpus that the options describe; return its directory."""
    if beam_options and not values.runner:
        raise ValueError(
            f"unexpected argument {beam_options[0]!r}; options begin with --, those for Beam need --runner"
        )
    plan = planned(values)
    if plan.problems:
        raise ManifestError("\n".join(plan.problems))
    extra: dict[str, Any] = {name: values[name].value for name in RUN_FLAGS if values[name].present}
    extra |= {"beam_options": beam_options, "progress": sys.stderr.isatty()}
    return build_corpus(plan.sources, values.output, **plan.options, **extra)


def main(argv: Sequence[str]) -> None:
    """Command line entry point."""
    try:
        if flags.FLAGS.dry_run:
            plan = planned(flags.FLAGS)
            text, n_problems = dry_run(plan.sources, plan.options, plan.problems)
            print(text)
            sys.exit(1 if n_problems else 0)
        if not flags.FLAGS.output:
            raise ValueError("--output is missing: the directory to create")
        output = run(flags.FLAGS, argv[1:])
    except (ValueError, KeyError, OSError) as error:
        sys.exit(f"error: {error.args[-1] if error.args else error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where this one was")
    corpus = Corpus(output)
    print(corpus)
    for line in corpus.manifest["report"]:
        print(f"  {line}")
    for dataset in corpus.datasets:
        fit = dataset["rank_expression"]
        print(f"  {dataset['name']}: rank→expression R² {fit['r2']:.3f}; {dataset['counts']}")
        for line in dataset["provenance"]["report"]:
            print(f"    {line}")


if __name__ == "__main__":
    # Not at import: whoever imports `build_corpus` has flags of their own.
    define_flags(flags.FLAGS)
    app.run(main)
