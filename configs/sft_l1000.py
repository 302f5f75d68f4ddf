"""SFT on perturbation profiles as L1000 has them, with the paper's settings: a treated profile from an untreated one.

    python -m c2s_jax.train --config=configs/sft_l1000.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS

Rizvi et al., bioRxiv 2025.04.14.648850: batches of 2 with 32 accumulated, learning rate 1e-4, 3,500 steps. Held-out
profiles and the small run: docs/recipes/perturbation.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task, overrides
from c2s_jax.models.gpt_neox import RELEASED

SMALL_MODEL = runpy.run_path(str(Path(__file__).with_name("sft_dong.py")))["SMALL_MODEL"]
TASK = "perturbation_response"


def get_config() -> ConfigDict:
    config = base("gpt_neox")
    config.name = "sft_l1000"
    config.model.update(RELEASED["1b"], dtype="bfloat16", remat="full")
    config.steps, config.batch_size, config.accumulate = 3_500, 64, 32
    config.data.seq_len = 8192
    config.data.tasks = (TASK,)
    config.data.mixture = ConfigDict({TASK: mixture_task(TASK, loss="response")})
    config.optimizer.update(learning_rate=1e-4, warmup_steps=100)
    config.small = overrides(
        SMALL_MODEL
        | {
            "steps": 300,
            "batch_size": 16,
            "accumulate": 1,
            "data.seq_len": 384,
            "data.rows_per_block": 256,
            f"data.mixture.{TASK}.loss": "all",
            "optimizer.learning_rate": 2e-3,
            "optimizer.warmup_steps": 50,
            "optimizer.weight_decay": 0.1,
            "validate_every": 50,
            "validation_rows": 32,
            "checkpoint.every": 50,
        }
    )
    return config
