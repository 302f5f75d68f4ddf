"""Gemma-2 2B on a corpus of cell sentences: 2,614,341,888 parameters (arXiv:2408.00118, table 1).

    python -m c2s_jax.train --config=configs/2b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.init_from=google/gemma-2-2b
"""

from ml_collections import ConfigDict

from c2s_jax.config import base
from c2s_jax.models.gemma2 import RELEASED


def get_config() -> ConfigDict:
    config = base()
    config.name = "2b"
    config.model.update(RELEASED["2b"], dtype="bfloat16", remat="full")
    return config
