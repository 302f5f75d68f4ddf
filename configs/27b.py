"""Gemma-2 27B on a corpus of cell sentences: 27,227,128,320 parameters (arXiv:2408.00118, table 1).

    python -m c2s_jax.train --config=configs/27b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.init_from=google/gemma-2-27b
"""

from ml_collections import ConfigDict

from c2s_jax.config import base
from c2s_jax.models.gemma2 import RELEASED


def get_config() -> ConfigDict:
    config = base()
    config.name = "27b"
    config.model.update(RELEASED["27b"], dtype="bfloat16", remat="full")
    return config
