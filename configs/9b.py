"""Gemma-2 9B on a corpus of cell sentences: 9,241,705,984 parameters (arXiv:2408.00118, table 1).

    python -m c2s_jax.train --config=configs/9b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.init_from=google/gemma-2-9b
"""

from ml_collections import ConfigDict

from c2s_jax.config import base
from c2s_jax.models.gemma2 import RELEASED


def get_config() -> ConfigDict:
    config = base()
    config.name = "9b"
    config.model.update(RELEASED["9b"], dtype="bfloat16", remat="full")
    return config
