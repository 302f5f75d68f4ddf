"""Pythia 410M (GPT-NeoX) on a corpus of cell sentences: 405,334,016 parameters (arXiv:2304.01373, table 1).

    python -m c2s_jax.train --config=configs/410m.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.init_from=EleutherAI/pythia-410m
"""

from ml_collections import ConfigDict

from c2s_jax.config import base
from c2s_jax.models.gpt_neox import RELEASED


def get_config() -> ConfigDict:
    config = base("gpt_neox")
    config.name = "410m"
    config.model.update(RELEASED["410m"], dtype="bfloat16", remat="full")
    config.data.seq_len = 2048  # Pythia's context; C2S's models have 8192
    return config
