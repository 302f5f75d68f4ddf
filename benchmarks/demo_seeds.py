"""The demo's held-out accuracy over seeds, beside the logistic regression and the majority class of the same run.

    python benchmarks/demo_seeds.py [--seeds 0 1 2] [--folder runs/seeds]

Prints JSON: a row a seed, their means, and what ran it. Runs that are there already are not repeated.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parent.parent


def run(seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one seed as a user would; its headline numbers."""
    workdir = folder / f"seed{seed}"
    began = time.monotonic()
    command = [sys.executable, "-m", "c2s_jax.train", "--config=configs/demo.py", f"--config.seed={seed}"]
    subprocess.run([*command, f"--workdir={workdir}"], cwd=ROOT, check=True, stdout=sys.stderr)
    metrics = json.loads((workdir / "metrics.json").read_text())
    annotation, generation = metrics["annotation"], metrics["generation"]
    references = generation["references"]
    return {
        "seed": seed,
        "accuracy": annotation["accuracy"],
        "macro_f1": annotation["macro_f1"],
        "logistic_regression": annotation["baselines"]["logistic_regression"],
        "majority": annotation["baselines"]["majority"],
        "generation": {k: generation[k] for k in ("valid", "unique", "overlap", "knn_accuracy", "scfid")},
        "scfid_references": {name: values["scfid"] for name, values in references.items()},
        "reconstruction_r2": metrics["reconstruction"]["r2"],
        "seconds": metrics["seconds"],
        "seconds_of_command": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "seeds")
    arguments = parser.parse_args()
    rows = [run(seed, arguments.folder.resolve()) for seed in arguments.seeds]
    result = {
        "benchmark": "demo_seeds",
        "runs": rows,
        "mean_accuracy": mean(r["accuracy"] for r in rows),
        "mean_macro_f1": mean(r["macro_f1"] for r in rows),
        "mean_logistic_regression_accuracy": mean(r["logistic_regression"]["accuracy"] for r in rows),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "flax", "scanpy", "c2s_jax")},
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
