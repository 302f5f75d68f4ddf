"""A small Gemma-2, from scratch, on 700 real blood cells: minutes on two CPU cores.

    python -m c2s_jax.train --config=configs/demo.py [--config.seed=1] [--workdir=DIR]

Data: the PBMCs bundled in scanpy's wheel (Zheng et al. 2017, doi:10.1038/ncomms14049), 490 cells to train on.
"""

from ml_collections import ConfigDict

from c2s_jax.config import base, mixture_task

TUNED = (
    "On the validation split only: row length and batch size, number of steps, shares of the tasks, temperature and "
    "top-p of generation. No choice was made by a look at the test split."
)
NOT_TUNED = "Not tuned: architecture, optimizer, augmentation and prompts are first choices."
GENES = 200  # of about 240 a cell expresses: with a prompt, 200 fit a row


def get_config() -> ConfigDict:
    config = base()
    config.name = "demo"
    config.workdir = "runs/demo"
    config.data.bundled = "pbmc68k_reduced"

    config.steps = 500
    config.batch_size = 16
    config.data.seq_len = 256
    config.data.rows_per_block = 256

    config.model.update(
        vocab_size=0,  # the tokenizer's
        embed_dim=128,
        ffw_dim=384,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32.0,
        sliding_window=64,
        attention_chunk=128,
        remat="dots",
    )
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, weight_decay=0.1)

    tasks = {
        "cell_sentence_modelling": dict(weight=1.0, min_genes=GENES, max_genes=GENES),
        "cell_type_annotation": dict(weight=5.0, response_weight=10.0, min_genes=48, max_genes=GENES),
        "cell_type_conditioned_generation": dict(weight=2.0, min_genes=GENES, max_genes=GENES),
    }
    config.data.tasks = tuple(tasks)
    config.data.mixture = ConfigDict({name: mixture_task(name, **settings) for name, settings in tasks.items()})
    config.data.augmentation.update(shuffle_ties=True, gene_dropout=0.2)

    config.validate_every = 75
    config.validation_rows = 32
    config.checkpoint.every = 150
    config.evaluation.update(at_end=True, max_genes=GENES, batch_size=70, temperature=0.85, top_p=0.95)
    config.evaluation.more_suites = ("embedding",)
    config.notes = (TUNED, NOT_TUNED)
    return config
