"""Gemma-2 2B on a corpus of cell sentences: 2,614,341,888 parameters (arXiv:2408.00118, table 1).

    python -m c2s_jax.train --config=configs/2b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.data.tokenizer=tokenizer.model
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task


def get_config() -> ConfigDict:
    config = base()
    config.name = "2b"
    config.model.update(
        vocab_size=256_000,
        embed_dim=2304,
        ffw_dim=9216,
        num_layers=26,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256.0,
        dtype="bfloat16",
        remat="full",
    )
    config.mesh.update(replica=1, fsdp=-1, tensor=1)
    config.batch_size = 64  # rows of 8192 tokens a step
    config.steps = 100_000
    config.optimizer.update(learning_rate=1e-4, warmup_steps=1_000, weight_decay=0.01)

    tasks = ("cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation")
    config.data.tasks = tasks
    config.data.mixture = ConfigDict({task: mixture_task(task) for task in tasks})
    config.checkpoint.update(every=1_000, keep=3)
    config.validate_every = 1_000
    return config
