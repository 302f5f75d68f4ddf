"""Data set interpretation: 5 to 20 cells of one donor and tissue in, an abstract out (docs/recipes/abstract.md).

    python -m c2s_jax.train --config=configs/sft_abstract.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/sft_abstract.py --workdir=DIR --config.data.corpus=CORPUS \\
        --config.scale=small --config.data.tokenizer=TOKENIZER
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import fine_tuning, from_scratch

TASK = "abstract_generation"


def get_config() -> ConfigDict:
    small = from_scratch(TASK) | {
        "data.seq_len": 512,
        "batch_size": 8,
        f"data.mixture.{TASK}.min_genes": 20,
        f"data.mixture.{TASK}.max_genes": 40,
        f"data.mixture.{TASK}.max_cells": 6,
    }
    return fine_tuning("sft_abstract", {TASK: {"min_genes": 50, "max_genes": 400}}, small)
