"""GRPO on real cells: PBMCs under interferon beta, some conditions held out, against as much more SFT.

    C2S_DATA=FOLDER python -m benchmarks.grpo_kang --folder=runs/kang [--long] [--seeds 0 1 2] [--only=sft|grpo|runs]

Builds the corpus (``_kang``), tunes a small model in both directions (``configs/sft_dong.py``), and from it, for each
seed, runs GRPO with a reward on interferon genes and as much more SFT, in seconds of processor time. The reward is the
paper's, nearness to single real cells, and, apart, the energy score. Sentences are those of 120 genes, which SFT learns
to write as real cells are distributed, or with ``--long`` of 600, which it does not. Writes a cell for
each held-out cell with each model and measures them (``_responses``). What is there already is not done again. Prints
JSON; ``curves.png`` and ``table.md`` go into the folder.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import _kang
from benchmarks._grpo_runs import ROOT, Runs, draw, seconds, table
from benchmarks._responses import Measure, write_cells
from c2s_jax.data import Corpus

PANELS = {
    "grpo/reward/cell_mse": "reward: −MSE, interferon genes",
    "grpo/reward/cell_scfid": "reward: −scFID, interferon genes",
    "grpo/reward/cell_energy": "reward: energy score, interferon genes",
    "train/kl": "KL from the SFT model",
    "train/entropy": "entropy of a token, nats",
    "grpo/genes_per_completion": "genes a cell",
}
COLUMNS = {
    "reward": ("reward", ".4f"),
    "scFID, interferon": ("scfid_interferon", ".3f"),
    "scFID, other genes": ("scfid_other", ".3f"),
    "spread": ("spread_interferon", ".3g"),
    "MMD²": ("mmd", ".3g"),
    "W2": ("wasserstein", ".3g"),
} | {name: (name, ".3g") for name in ("valid", "unique", "distinct", "genes")}


GENES, LONG_GENES = 120, 600
LARGE_GROUPS = [
    "--config.optimizer.learning_rate=2e-4",
    "--config.grpo.prompts=8",
    "--config.grpo.num_generations=32",
]


def start(folder: Path, data: Path, phases: int, *, long: bool) -> Runs:
    """Corpus and runs. Rewards: nearness to real cells in interferon genes, one by one and as a population; or the
    energy score in these genes and in all. The latter has larger groups and twice as many smaller steps if sentences
    are short."""
    genes = f"{data / _kang.SETS}:{_kang.INTERFERON}"
    valid = {"weight": 0.05}
    near = {
        "cell_mse": {"weight": 1.0, "genes": genes, "real": "mean"},
        "cell_scfid": {"weight": 0.1, "genes": genes, "components": 8},
        "valid_genes": valid,
    }
    every = {"path": "c2s_jax.rl.rewards.energy:cell_energy"}
    energy = {"cell_energy": {"weight": 1.0, "genes": genes}, "every_gene": every}
    completions = ["--config.grpo.max_completion_length=288"] if long else []
    steps = [f"--config.steps={phases}", *completions]
    if long:
        energy_flags = [*steps, f"--config.grpo.rewards={energy | {'valid_genes': valid}!r}"]
    else:
        energy_flags = [f"--config.steps={2 * phases}", *LARGE_GROUPS, f"--config.grpo.rewards={energy!r}"]
    if not (manifest := folder / "kang.yaml").exists():
        _kang.prepare(data, folder, LONG_GENES if long else GENES)
    return Runs(
        folder,
        manifest,
        "dong",
        grpo={"grpo": [*steps, f"--config.grpo.rewards={near!r}"], "energy": energy_flags},
        more=["--config.optimizer.learning_rate=5e-4", "--config.optimizer.warmup_steps=5"],
        every=["--config.data.seq_len=320"] if long else [],
        alike=long,
    )


def measure(runs: Runs, seeds: list[int], genes: str) -> dict[str, Any]:
    """Figures of each arm, all seeds together and apart, and of the references."""
    found = Measure(Corpus(runs.corpus), _kang.CONTROL, genes)
    figures: dict[str, Any] = {}
    for arm, workdirs in runs.arms(seeds).items():
        sides = [found.generated(write_cells(path, _kang.CONTROL, seed=i)) for i, path in enumerate(workdirs)]
        figures[arm] = found.figures(sides) | {"processor_seconds": [seconds(path) for path in workdirs]}
        if len(sides) > 1:
            alone = [found.figures([side], resamples=200) for side in sides]
            figures[arm]["by_seed"] = [{k: one[k] for k in ("reward", "scfid_interferon")} for one in alone]
    figures |= {name: found.figures([side]) for name, side in found.references().items()}
    return {"interferon_genes": len(found.inside), "held_out_cells": len(found.rows), "figures": figures}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "kang")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--long", action="store_true", help=f"sentences of {LONG_GENES} genes, not {GENES}")
    parser.add_argument("--phases", type=int, default=20)
    parser.add_argument("--only", choices=("sft", "grpo", "runs"), help="end after these runs, without figures")
    given = parser.parse_args()
    data = Path(os.environ.get("C2S_DATA", ""))
    if not os.environ.get("C2S_DATA") or not (data / _kang.SOURCE).is_file():
        sys.exit(f"error: name the folder that has {_kang.SOURCE} in C2S_DATA")
    runs = start(given.folder.resolve(), data.resolve(), given.phases, long=given.long)
    runs.all(given.seeds, given.only)
    if given.only:
        return
    found = measure(runs, given.seeds, f"{data.resolve() / _kang.SETS}:{_kang.INTERFERON}")
    (runs.folder / "table.md").write_text(table(found["figures"], COLUMNS))
    draw(runs, given.seeds, PANELS, runs.folder / "curves.png")
    found |= {"versions": {n: version(n) for n in ("c2s_jax", "jax", "flax")}, "python": platform.python_version()}
    print(json.dumps(found | {"machine": f"{os.cpu_count()} cores"}, indent=1))


if __name__ == "__main__":
    main()
