"""GRPO on perturbation profiles as L1000 has them, with the paper's settings: the reward is Kendall's tau.

    python -m c2s_jax.train --config=configs/grpo_l1000.py --workdir=DIR \\
        --config.init_from=SFT_RUN --config.data.corpus=CORPUS \\
        --config.grpo.rewards.kendall_tau.genes=h.all.gmt:HALLMARK_APOPTOSIS

Start from a model tuned on pairs of untreated and treated profiles (learning rate 1e-4, 3,500 steps). Rizvi et al.,
bioRxiv 2025.04.14.648850: 24 responses, KL weight 5e-3, learning rate 1e-6, about 3,000 steps; tau on the 40 landmark
genes of apoptosis.
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
    config.name, config.objective = "grpo_l1000", "grpo"
    config.model.update(RELEASED["1b"], dtype="bfloat16", remat="full")
    config.steps = 3_000
    config.accumulate = 8
    config.data.seq_len = 8192
    config.data.tasks = (TASK,)
    config.data.mixture = ConfigDict({TASK: mixture_task(TASK)})
    config.grpo.update(prompts=32, num_generations=24, max_completion_length=4096, beta=5e-3, loss_type="grpo")
    config.grpo.rewards = ConfigDict({"kendall_tau": {"weight": 1.0, "genes": ""}})
    config.optimizer.update(learning_rate=1e-6, warmup_steps=100)
    config.checkpoint.every = 250
    small = {key: value for key, value in SMALL_MODEL.items() if key != "init_from"}
    config.small = overrides(
        small
        | {
            "steps": 24,
            "accumulate": 1,
            "data.seq_len": 512,
            "grpo.prompts": 8,
            "grpo.num_generations": 8,
            "grpo.max_completion_length": 160,
            "optimizer.learning_rate": 5e-4,
            "optimizer.warmup_steps": 5,
            "optimizer.weight_decay": 0.0,
            "log_every": 1,
            "checkpoint.every": 8,
        }
    )
    return config
