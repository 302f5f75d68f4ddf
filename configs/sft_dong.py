"""SFT on responses to cytokines in both directions, with the paper's settings: write the cell; tell what was done.

    python -m c2s_jax.train --config=configs/sft_dong.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS [--config.steps=STEPS]

Rizvi et al., bioRxiv 2025.04.14.648850: 3 to 4 epochs; the second direction names cell type, perturbation and exposure
together. Held-out conditions and the small run, from scratch on 1,027 cells: docs/recipes/perturbation.md.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_TUNED_SMALL, pythia

WRITE, NAME = "perturbed_cell_generation", "perturbation_annotation"
SMALL = PYTHIA_TUNED_SMALL | {
    "steps": 600,
    "data.seq_len": 128,
    f"data.mixture.{WRITE}.weight": 2.0,
    f"data.mixture.{NAME}.loss": "all",
    f"data.mixture.{NAME}.response_weight": 10.0,
    f"data.mixture.{NAME}.min_genes": 12,
    "data.augmentation.shuffle_ties": True,
}


def get_config() -> ConfigDict:
    config = pythia("sft_dong", (WRITE, NAME), SMALL, loss="response")
    config.steps, config.batch_size = 5_000, 64  # about 3 epochs of some 80,000 training cells
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100)
    config.evaluation.more_suites = ("perturbation",)
    return config
