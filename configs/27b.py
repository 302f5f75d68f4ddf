"""Gemma-2 27B on a corpus of cell sentences: 27,227,128,320 parameters (arXiv:2408.00118, table 1).

    python -m c2s_jax.train --config=configs/27b.py --workdir=DIR \\
        --config.data.corpus=CORPUS --config.data.tokenizer=tokenizer.model
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task


def get_config() -> ConfigDict:
    config = base()
    config.name = "27b"
    config.model.update(
        vocab_size=256_000,
        embed_dim=4608,
        ffw_dim=36864,
        num_layers=46,
        num_heads=32,
        num_kv_heads=16,
        head_dim=128,
        query_pre_attn_scalar=144.0,  # embed_dim / num_heads; not head_dim
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
