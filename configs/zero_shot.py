"""Embedding and single-cell–bulk integration of a model as it was released (docs/recipes/embedding.md).

    python -m c2s_jax.train --config=configs/zero_shot.py --workdir=DIR --config.data.corpus=CORPUS

One step at a learning rate of 0 changes nothing: the run's folder then holds the weights of init_from, and the
evaluation at its end is theirs.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import fine_tuning


def get_config() -> ConfigDict:
    still = {"steps": 1, "optimizer.warmup_steps": 0, "optimizer.learning_rate": 0.0}
    config = fine_tuning("zero_shot", {"cell_type_annotation": {"min_genes": 48, "max_genes": 1_000}}, still)
    config.update_from_flattened_dict(still)
    config.evaluation.more_suites = ("embedding", "bulk")
    return config
