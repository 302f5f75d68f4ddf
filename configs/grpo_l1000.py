"""GRPO on perturbation profiles as L1000 has them, with the paper's settings: the reward is Kendall's tau.

    python -m c2s_jax.train --config=configs/grpo_l1000.py --workdir=DIR \\
        --config.init_from=SFT_RUN --config.data.corpus=CORPUS \\
        --config.grpo.rewards.kendall_tau.genes=h.all.gmt:HALLMARK_APOPTOSIS

Start from a model tuned on pairs of untreated and treated profiles (learning rate 1e-4, 3,500 steps). Rizvi et al.,
bioRxiv 2025.04.14.648850: 24 responses, KL weight 5e-3, learning rate 1e-6, about 3,000 steps; tau on the 40 landmark
genes of apoptosis.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_GRPO_SMALL, pythia

TASK = "perturbation_response"
SMALL = PYTHIA_GRPO_SMALL | {
    "steps": 24,
    "data.seq_len": 512,
    "grpo.prompts": 8,
    "grpo.num_generations": 8,
    "grpo.max_completion_length": 160,
    "checkpoint.every": 8,
}


def get_config() -> ConfigDict:
    config = pythia("grpo_l1000", (TASK,), SMALL)
    config.objective = "grpo"
    config.steps = 3_000
    config.accumulate = 8
    config.data.seq_len = 8192
    config.grpo.update(prompts=32, num_generations=24, max_completion_length=4096, beta=5e-3, loss_type="grpo")
    config.grpo.rewards = ConfigDict({"kendall_tau": {"weight": 1.0, "genes": ""}})
    config.optimizer.update(learning_rate=1e-6, warmup_steps=100)
    config.checkpoint.every = 250
    return config
