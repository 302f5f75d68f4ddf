"""SFT on perturbation profiles as L1000 has them, with the paper's settings: a treated profile from an untreated one.

    python -m c2s_jax.train --config=configs/sft_l1000.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS

Rizvi et al., bioRxiv 2025.04.14.648850: batches of 2 with 32 accumulated, learning rate 1e-4, 3,500 steps. Held-out
profiles and the small run: docs/recipes/perturbation.md.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_TUNED_SMALL, pythia

TASK = "perturbation_response"
SMALL = PYTHIA_TUNED_SMALL | {
    "steps": 300,
    "data.seq_len": 384,
    f"data.mixture.{TASK}.loss": "all",
}


def get_config() -> ConfigDict:
    config = pythia("sft_l1000", (TASK,), SMALL, loss="response")
    config.steps, config.batch_size, config.accumulate = 3_500, 64, 32
    config.data.seq_len = 8192
    config.optimizer.update(learning_rate=1e-4, warmup_steps=100)
    return config
