"""One rung of a ladder of sizes, width × layers, for ``python -m c2s_jax.scaling``; all read the same rows.

    python -m c2s_jax.scaling --workdir=runs/scaling --config.data.corpus=CORPUS --config.data.tokenizer=TOKENIZER \\
        --configs=configs/scaling.py:32x2,configs/scaling.py:48x2,configs/scaling.py:64x4,configs/scaling.py:96x4

"64x4@runs/scaling" is an adapter of rank 8 on the rung 64x4 of that ladder, for cells that it has not read.

A layer has 12 · width² parameters. The learning rate falls with the root of the width, and after warm-up stays what it
is: validations on the way are then of a run that has not been annealed, as its end is.
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task

TASKS = ("cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation")
GENES = 180


def get_config(size: str = "64x4") -> ConfigDict:
    size, _, ladder = size.partition("@")
    width, layers = map(int, size.split("x"))
    config = base()
    config.name = f"scaling_{size}"
    config.steps, config.batch_size = 200, 16
    config.data.seq_len, config.data.rows_per_block = 256, 256
    config.model.update(
        vocab_size=0,  # the tokenizer's
        embed_dim=width,
        ffw_dim=3 * width,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=width // 4,
        query_pre_attn_scalar=width / 4,
        sliding_window=128,
        attention_chunk=128,
    )
    config.optimizer.update(learning_rate=0.016 / width**0.5, warmup_steps=30, final_fraction=1.0)
    config.data.tasks = TASKS
    config.data.mixture = ConfigDict({t: mixture_task(t, min_genes=48, max_genes=GENES) for t in TASKS})
    if ladder:
        config.name += "_lora"
        config.init_from, config.lora.rank, config.lora.alpha = f"{ladder}/scaling_{size}", 8, 16.0
    config.validate_every, config.validation_rows = 20, 64
    config.checkpoint.every = 100
    config.notes = ("Not tuned: sizes, learning rate and shares of tasks are first choices.",)
    return config
