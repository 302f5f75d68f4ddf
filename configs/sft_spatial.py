"""Cells in space: niche, neighbours, same neighbourhood, same niche (docs/recipes/spatial.md).

    python -m c2s_jax.train --config=configs/sft_spatial.py --workdir=DIR --config.data.corpus=CORPUS
    python -m c2s_jax.train --config=configs/sft_spatial.py:no_interactions ...      # the ablation
    python -m c2s_jax.train --config=configs/sft_spatial.py:no_interactions --config.scale=small ...

Interactions of ligands and receptors are told in prompts; "no_interactions" leaves them out.
"""

from ml_collections import ConfigDict

from c2s_jax.recipe import fine_tuning, from_scratch

TASKS = ("niche_annotation", "neighbour_generation", "same_neighbourhood", "same_niche")
ANSWERS = ("niche_annotation", "same_neighbourhood", "same_niche")


def get_config(variant: str = "interactions") -> ConfigDict:
    if variant not in ("interactions", "no_interactions"):
        raise ValueError(f"sft_spatial.py:{variant}: give interactions or no_interactions")
    told = variant == "interactions"
    tasks = {task: {"min_genes": 10, "max_genes": 200, "interactions": told} for task in TASKS}
    small = from_scratch(*ANSWERS)
    small |= {f"data.mixture.{task}.min_genes": 10 for task in TASKS}
    small |= {f"data.mixture.{task}.max_genes": 20 for task in TASKS}
    small |= {"data.mixture.niche_annotation.max_cells": 6, "data.seq_len": 320, "steps": 300}
    config = fine_tuning(f"sft_spatial_{variant}", tasks, small)
    config.evaluation.more_suites = ("spatial",)
    return config
