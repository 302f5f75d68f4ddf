"""Cluster captioning: two cells of a cluster in, a description of it out (docs/recipes/caption.md).

    python -m c2s_jax.train --config=configs/sft_caption.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/sft_caption.py --workdir=DIR --config.data.corpus=CORPUS \\
        --config.scale=small --config.data.tokenizer=TOKENIZER

The paper's settings: learning rate 1e-5, weight decay 0.01, 64 examples a batch; clusters of the test are unseen.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import SMALL_GENES, fine_tuning, from_scratch

TASK = "cluster_captioning"


def get_config() -> ConfigDict:
    small = from_scratch(TASK) | {f"data.mixture.{TASK}.max_genes": 80}
    return fine_tuning("sft_caption", {TASK: SMALL_GENES | {"max_genes": 1_000}}, small)
