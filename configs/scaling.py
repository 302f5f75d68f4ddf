"""One rung of a ladder of sizes, width × layers, for ``python -m c2s_jax.scaling``; all read the same rows.

    python -m c2s_jax.scaling --workdir=runs/scaling --config.data.corpus=CORPUS --config.data.tokenizer=TOKENIZER \\
        --configs=configs/scaling.py:32x2,configs/scaling.py:48x2,configs/scaling.py:64x4,configs/scaling.py:96x4

"64x4@runs/scaling" goes on from the rung 64x4 of that ladder with tasks that it has not read; "64x4+lora@runs/scaling"
does so with an adapter of rank 8.

A layer has 12 · width² parameters. The learning rate falls with the root of the width, and after warm-up stays what it
is: validations on the way are then of a run that has not been annealed, as its end is.
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task

TASKS = ("cell_sentence_modelling", "cell_type_annotation", "cell_type_conditioned_generation")
TUNED_TASKS = ("perturbed_cell_generation", "perturbation_annotation")
GENES = 180
RATE = 0.016  # at width 1
TUNED_RATES = {"": 2.0, "lora": 8.0}  # times that; on 64x4, twice as much gained less than half a percent


def get_config(size: str = "64x4") -> ConfigDict:
    size, _, ladder = size.partition("@")
    shape, _, how = size.partition("+")
    if how not in TUNED_RATES or (how and not ladder):
        raise ValueError(f"{size!r} is no rung: give 64x4, 64x4@LADDER, or 64x4+lora@LADDER")
    width, layers = map(int, shape.split("x"))
    config = base()
    config.name = f"scaling_{shape}"
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
        remat="dots",
    )
    config.optimizer.update(learning_rate=RATE / width**0.5, warmup_steps=30, final_fraction=1.0)
    config.data.tasks = TUNED_TASKS if ladder else TASKS
    tasks = {t: mixture_task(t, min_genes=48, max_genes=GENES) for t in config.data.tasks}
    config.data.mixture = ConfigDict(tasks)
    if ladder:
        config.name += "_lora" if how else "_tuned"
        config.init_from = f"{ladder}/scaling_{shape}"
        config.optimizer.learning_rate *= TUNED_RATES[how]
    if how:
        config.lora.rank, config.lora.alpha = 8, 16.0
    config.validate_every, config.validation_rows = 20, 64
    config.checkpoint.every = 100
    if ladder:
        config.notes = ("Learning rates were chosen on 64x4 by the validation loss; all else is a first choice.",)
    else:
        config.notes = ("Not tuned: sizes, learning rate and shares of tasks are first choices.",)
    return config
