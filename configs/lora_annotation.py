"""Cell type annotation with an adapter of rank 16 on every linear map; the released weights stay as they are.

    python -m c2s_jax.train --config=configs/lora_annotation.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/lora_annotation.py --workdir=DIR --config.data.corpus=CORPUS \\
        --config.scale=small --config.init_from=runs/scaling/scaling_128x4

Its small scale needs a small model to start from. Learning rate 1e-4: ten times that of full fine-tuning.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import SMALL_GENES, fine_tuning

TASK = "cell_type_annotation"


def get_config() -> ConfigDict:
    small = {"optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 0.0}
    config = fine_tuning("lora_annotation", {TASK: SMALL_GENES | {"max_genes": 1_000}}, small)
    config.lora.rank = 16
    config.optimizer.learning_rate = 1e-4
    return config
