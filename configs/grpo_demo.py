"""GRPO after the demo: the model of ``configs/demo.py`` learns to write cells that are valid and like the real ones.

    python -m c2s_jax.train --config=configs/demo.py
    python -m c2s_jax.train --config=configs/grpo_demo.py [--config.init_from=RUN] [--workdir=DIR]

The reward is computed on training cells; the evaluation at the end is on cells that neither run has seen.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from c2s_jax.config import mixture_task

DEMO = runpy.run_path(str(Path(__file__).with_name("demo.py")))
GENES = DEMO["GENES"]
TASK = "cell_type_conditioned_generation"


def get_config() -> ConfigDict:
    config = DEMO["get_config"]()
    config.name, config.workdir, config.init_from = "grpo_demo", "runs/grpo_demo", "runs/demo"
    config.objective = "grpo"
    config.steps = 60

    config.data.seq_len = 384  # a prompt and a whole sentence
    config.data.tasks = (TASK,)
    config.data.mixture = ConfigDict({TASK: mixture_task(TASK, min_genes=GENES, max_genes=GENES)})
    config.data.augmentation.update(shuffle_ties=False, gene_dropout=0.0)

    config.grpo.update(prompts=8, num_generations=8, max_completion_length=288, beta=0.02, loss_type="grpo")
    config.grpo.rewards = ConfigDict({"valid_genes": {"weight": 1.0}, "cell_mse": {"weight": 4.0, "real": "mean"}})
    config.optimizer.update(learning_rate=2e-4, warmup_steps=5, weight_decay=0.0)
    config.log_every = 1
    config.checkpoint.every = 20
    config.notes = ("Starts from the demo's model. First choices throughout; nothing was tuned.",)
    return config
