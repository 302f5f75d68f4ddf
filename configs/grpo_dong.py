"""GRPO on responses to cytokines, with the paper's settings: generated cells come nearer to real ones.

    python -m c2s_jax.train --config=configs/grpo_dong.py --workdir=DIR \\
        --config.init_from=SFT_RUN --config.data.corpus=CORPUS \\
        --config.grpo.rewards.cell_mse.encoder=SCGPT_FOLDER \\
        --config.grpo.rewards.cell_mse.genes=h.all.gmt:HALLMARK_INTERFERON_ALPHA_RESPONSE+HALLMARK_INTERFERON_GAMMA_RESPONSE

Start from ``configs/sft_dong.py``, a model tuned in both directions. Rizvi et al., bioRxiv 2025.04.14.648850: 32
responses, each paired at random with a real cell of its condition; the reward is the negative squared distance of their
scGPT embeddings on the interferon genes; 3 epochs. The small run: docs/recipes/perturbation.md.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import PYTHIA_GRPO_SMALL, pythia

TASK = "perturbed_cell_generation"
SMALL = PYTHIA_GRPO_SMALL | {
    "steps": 20,
    "data.seq_len": 160,
    "grpo.prompts": 12,
    "grpo.num_generations": 16,
    "grpo.max_completion_length": 96,
    "grpo.beta": 0.02,
    "checkpoint.every": 10,
}


def get_config() -> ConfigDict:
    config = pythia("grpo_dong", (TASK,), SMALL)
    config.objective = "grpo"
    config.steps = 1_000
    config.accumulate = 8
    config.data.seq_len = 8192
    config.grpo.update(prompts=8, num_generations=32, max_completion_length=4096, beta=0.0, loss_type="grpo")
    config.grpo.rewards = ConfigDict({"cell_mse": {"weight": 1.0, "genes": "", "encoder": "", "real": "drawn"}})
    config.optimizer.update(learning_rate=1e-6, warmup_steps=50)
    config.checkpoint.every = 100
    return config
