"""Generation of cells, unconditional and by type, of up to 1,000 genes (docs/recipes/generation.md).

    python -m c2s_jax.train --config=configs/sft_generation.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/sft_generation.py --workdir=DIR --config.data.corpus=CORPUS \\
        --config.scale=small --config.data.tokenizer=TOKENIZER
"""

from typing import Any

from ml_collections import ConfigDict

from c2s_jax.recipe import fine_tuning

GENES: dict[str, Any] = {"min_genes": 200, "max_genes": 1_000}
TASKS = {
    "cell_sentence_modelling": GENES,
    "cell_type_conditioned_generation": GENES | {"weight": 2.0},
}


def get_config() -> ConfigDict:
    fixed = {f"data.mixture.{task}.min_genes": 180 for task in TASKS}
    more = {"steps": 250, "evaluation.more_suites": ("embedding", "bulk"), "data.augmentation.gene_dropout": 0.0}
    return fine_tuning("sft_generation", TASKS, fixed | more)
