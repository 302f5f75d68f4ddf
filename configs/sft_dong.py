"""SFT on responses to cytokines in both directions, with the paper's settings: write the cell; tell what was done.

    python -m c2s_jax.train --config=configs/sft_dong.py --workdir=DIR \\
        --config.init_from=PRETRAINED --config.data.corpus=CORPUS [--config.steps=STEPS]

Rizvi et al., bioRxiv 2025.04.14.648850: 3 to 4 epochs; the second direction names cell type, perturbation and exposure
together. Held-out conditions and the small run, from scratch on 1,027 cells: docs/recipes/perturbation.md.
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task, overrides
from c2s_jax.models.gpt_neox import RELEASED

WRITE, NAME = "perturbed_cell_generation", "perturbation_annotation"
SMALL_MODEL = {
    "init_from": "",
    "model.vocab_size": 0,  # the tokenizer's
    "model.embed_dim": 128,
    "model.ffw_dim": 512,
    "model.num_layers": 4,
    "model.num_heads": 4,
    "model.dtype": "float32",
    "model.remat": "none",
    "model.attention_chunk": 128,
}
"""A small model from scratch; runs that start from it have the same."""


def get_config() -> ConfigDict:
    config = base("gpt_neox")
    config.name = "sft_dong"
    config.model.update(RELEASED["1b"], dtype="bfloat16", remat="full")
    config.steps, config.batch_size = 5_000, 64  # about 3 epochs of some 80,000 training cells
    config.data.tasks = (WRITE, NAME)
    config.data.mixture = ConfigDict({task: mixture_task(task, loss="response") for task in (WRITE, NAME)})
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100)
    config.evaluation.more_suites = ("perturbation",)
    config.small = overrides(
        SMALL_MODEL
        | {
            "steps": 250,
            "batch_size": 16,
            "data.seq_len": 128,
            "data.rows_per_block": 256,
            f"data.mixture.{WRITE}.weight": 2.0,
            f"data.mixture.{NAME}.loss": "all",
            f"data.mixture.{NAME}.response_weight": 10.0,
            f"data.mixture.{NAME}.min_genes": 12,
            "data.augmentation.shuffle_ties": True,
            "optimizer.learning_rate": 2e-3,
            "optimizer.warmup_steps": 50,
            "optimizer.weight_decay": 0.1,
            "validate_every": 50,
            "validation_rows": 32,
            "checkpoint.every": 50,
        }
    )
    return config
