"""Training on processors with huge pages and without, in turns.

    JAX_PLATFORMS=cpu python -m benchmarks.huge_pages --run=runs/demo [--steps=60] [--turns=3]

``--run`` is a finished demo: its corpus and tokenizer are trained on again, from scratch, for some steps, in processes
that differ in ``GLIBC_TUNABLES`` alone. Prints JSON: tokens a second (the last the run reports), and their ratio. Does
nothing of use where ``/sys/kernel/mm/transparent_hugepage/enabled`` is not ``madvise``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from c2s_jax.huge_pages import ENABLED, TUNABLE
from c2s_jax.report.curves import read_metrics

ROOT = Path(__file__).parents[1]


def tokens_per_second(run: Path, steps: int, huge: bool) -> float:
    """Of a run of its own."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "c2s_jax.train", "--config=configs/demo.py", f"--workdir={workdir}"]
        command += [f"--config.steps={steps}", "--config.evaluation.at_end=False", f"--config.log_every={steps}"]
        command += [f"--config.data.corpus={run / 'corpus'}", f"--config.data.tokenizer={run / 'tokenizer.model'}"]
        environment = os.environ | {"GLIBC_TUNABLES": f"{TUNABLE}={int(huge)}"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return read_metrics(Path(workdir) / "metrics.jsonl")["train/tokens_per_second"][1][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    run = options.run.resolve()
    turns = [[tokens_per_second(run, options.steps, huge) for huge in (False, True)] for _ in range(options.turns)]
    plain, huge = (statistics.median(column) for column in zip(*turns))
    ratios = [b / a for a, b in turns]
    print(
        json.dumps(
            {
                "kernel": ENABLED.read_text().strip(),
                "tokens_per_second": plain,
                "with_huge_pages": huge,
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
        )
    )


if __name__ == "__main__":
    main()
