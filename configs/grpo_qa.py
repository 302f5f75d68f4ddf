"""GRPO on questions about data sets, with the paper's settings: BERTScore under BioBERT is the reward.

    python -m c2s_jax.train --config=configs/grpo_qa.py --workdir=DIR \\
        --config.init_from=SFT_RUN --config.data.corpus=CORPUS

Start from a model tuned on questions of other studies (learning rate 1e-5, 100 warm-up steps), and keep studies for a
test that neither has seen. Rizvi et al., bioRxiv 2025.04.14.648850: 32 answers a question, KL weight 0.03, learning
rate 5e-7.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_GRPO_SMALL, pythia

TASK = "question_answering"
SMALL = PYTHIA_GRPO_SMALL | {
    "steps": 24,
    "data.seq_len": 512,
    f"data.mixture.{TASK}.min_genes": 4,
    f"data.mixture.{TASK}.max_genes": 8,
    f"data.mixture.{TASK}.min_cells": 2,
    f"data.mixture.{TASK}.max_cells": 2,
    "evaluation.max_genes": 8,
    "grpo.num_generations": 16,
    "grpo.max_completion_length": 96,
    "checkpoint.every": 8,
}


def get_config() -> ConfigDict:
    config = pythia("grpo_qa", (TASK,), SMALL)
    config.objective = "grpo"
    config.steps = 600
    config.accumulate = 8
    config.data.seq_len = 8192
    config.grpo.update(prompts=8, num_generations=32, max_completion_length=256, beta=0.03, loss_type="grpo")
    config.grpo.rewards = ConfigDict({"bert_score": {"encoder": "dmis-lab/biobert-base-cased-v1.1", "layer": 12}})
    config.optimizer.update(learning_rate=5e-7, warmup_steps=10)
    config.checkpoint.every = 50
    return config
