"""SFT on questions about data sets, with the paper's settings.

    python -m c2s_jax.train --config=configs/sft_qa.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS [--config.steps=STEPS]

Rizvi et al., bioRxiv 2025.04.14.648850: about 1,600 questions, learning rate 1e-5, 100 warm-up steps. Studies for GRPO
and for the test are others: docs/recipes/qa.md.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_TUNED_SMALL, pythia

TASK = "question_answering"
SMALL = PYTHIA_TUNED_SMALL | {
    "steps": 200,
    "data.seq_len": 384,
    f"data.mixture.{TASK}.loss": "all",
    f"data.mixture.{TASK}.response_weight": 5.0,
    f"data.mixture.{TASK}.min_genes": 4,
    f"data.mixture.{TASK}.max_genes": 8,
    f"data.mixture.{TASK}.min_cells": 2,
    f"data.mixture.{TASK}.max_cells": 2,
    "evaluation.max_genes": 8,
    "optimizer.warmup_steps": 20,
    "validation_rows": 16,
}


def get_config() -> ConfigDict:
    config = pythia("sft_qa", (TASK,), SMALL, loss="response")
    config.steps, config.batch_size, config.accumulate = 500, 16, 8
    config.data.seq_len = 8192
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100)
    return config
