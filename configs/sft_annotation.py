"""Cell type annotation: a cell sentence in, the name of its type out (docs/recipes/annotation.md).

    python -m c2s_jax.train --config=configs/sft_annotation.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/sft_annotation.py --workdir=DIR --config.data.corpus=CORPUS \\
        --config.scale=small --config.data.tokenizer=TOKENIZER
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import SMALL_GENES, fine_tuning, from_scratch

TASK = "cell_type_annotation"


def get_config() -> ConfigDict:
    return fine_tuning("sft_annotation", {TASK: SMALL_GENES | {"max_genes": 1_000}}, from_scratch(TASK))
