"""Pythia 1B (GPT-NeoX) on a corpus of cell sentences: 1,011,781,632 parameters (arXiv:2304.01373, table 1).

    python -m c2s_jax.train --config=configs/1b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.init_from=EleutherAI/pythia-1b
"""

from ml_collections import ConfigDict

from c2s_jax.config import base
from c2s_jax.models.gpt_neox import RELEASED


def get_config() -> ConfigDict:
    config = base("gpt_neox")
    config.name = "1b"
    config.model.update(RELEASED["1b"], dtype="bfloat16", remat="full")
    config.data.seq_len = 2048  # Pythia's context; C2S's models have 8192
    return config
