"""SFT on questions about data sets, with the paper's settings.

    python -m c2s_jax.train --config=configs/sft_qa.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS [--config.steps=STEPS]

Rizvi et al., bioRxiv 2025.04.14.648850: about 1,600 questions, learning rate 1e-5, 100 warm-up steps. Studies for GRPO
and for the test are others: docs/recipes/qa.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task, overrides
from c2s_jax.models.gpt_neox import RELEASED

SMALL_MODEL = runpy.run_path(str(Path(__file__).with_name("sft_dong.py")))["SMALL_MODEL"]
TASK = "question_answering"


def get_config() -> ConfigDict:
    config = base("gpt_neox")
    config.name = "sft_qa"
    config.model.update(RELEASED["1b"], dtype="bfloat16", remat="full")
    config.steps, config.batch_size, config.accumulate = 500, 16, 8
    config.data.seq_len = 8192
    config.data.tasks = (TASK,)
    config.data.mixture = ConfigDict({TASK: mixture_task(TASK, loss="response")})
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100)
    config.small = overrides(
        SMALL_MODEL
        | {
            "steps": 200,
            "accumulate": 1,
            "data.seq_len": 384,
            "data.rows_per_block": 256,
            f"data.mixture.{TASK}.loss": "all",
            f"data.mixture.{TASK}.response_weight": 5.0,
            f"data.mixture.{TASK}.min_genes": 4,
            f"data.mixture.{TASK}.max_genes": 8,
            f"data.mixture.{TASK}.min_cells": 2,
            f"data.mixture.{TASK}.max_cells": 2,
            "optimizer.learning_rate": 2e-3,
            "optimizer.warmup_steps": 20,
            "optimizer.weight_decay": 0.1,
            "validate_every": 50,
            "validation_rows": 16,
            "checkpoint.every": 50,
        }
    )
    return config
