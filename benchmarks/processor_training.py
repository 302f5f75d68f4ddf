"""What makes training fast on processors, each switched off in turn: huge pages, micro-batches, what is kept.

    JAX_PLATFORMS=cpu python -m benchmarks.processor_training --run=runs/demo [--steps=60] [--turns=3]

``--run`` is a finished demo: its corpus and tokenizer are trained on again, from scratch, for some steps, in processes
that differ in one thing. Updates of GRPO are those of ``grpo_speed``, prompts of 64 tokens. Prints JSON: tokens a
second (the last that the run reports; of completions for GRPO), and by how much the project's choice is faster, turn by
turn. Huge pages say nothing where ``/sys/kernel/mm/transparent_hugepage/enabled`` is not ``madvise``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from c2s_jax.huge_pages import ENABLED, TUNABLE
from c2s_jax.report.curves import read_metrics

ROOT = Path(__file__).parents[1]
WHOLE = "from c2s_jax.parallel import mesh; mesh.CPU_TRAINED_TOKENS = 1 << 40"
TRAIN = "from absl import app; from c2s_jax import train; app.run(train.main, flags_parser=train.parse_flags)"
GRPO = """
import statistics, tempfile
from pathlib import Path
from benchmarks import _grpo_ours_peer, grpo_speed
folder = Path(tempfile.mkdtemp())
grpo_speed.build(folder, 64, 0.0, 5)
ours = _grpo_ours_peer.Ours(folder)
turns = [ours.step() for _ in range(5)][2:]
print(grpo_speed.TOKENS / statistics.median(turn["seconds"] - turn["rollout"] for turn in turns))
"""


def run(program: str, arguments: list[str], *, whole: bool = False, huge: bool = True) -> str:
    """Standard output of a program in a process of its own, with whole batches or without huge pages if asked for."""
    command = [sys.executable, "-c", f"{WHOLE if whole else ''}\n{program}", *arguments]
    environment = os.environ | {"GLIBC_TUNABLES": f"{TUNABLE}={int(huge)}"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def demo(source: Path, steps: int, *flags: str, whole: bool = False, huge: bool = True) -> float:
    """Tokens a second of the demo's training."""
    with tempfile.TemporaryDirectory() as workdir:
        arguments = ["--config=configs/demo.py", f"--workdir={workdir}", *flags]
        arguments += [f"--config.steps={steps}", "--config.evaluation.at_end=False", f"--config.log_every={steps}"]
        arguments += ["--config.data.bundled=", f"--config.data.corpus={source / 'corpus'}"]
        arguments += [f"--config.data.tokenizer={source / 'tokenizer.model'}"]
        run(TRAIN, arguments, whole=whole, huge=huge)
        return read_metrics(Path(workdir) / "metrics.jsonl")["train/tokens_per_second"][1][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    source, steps = options.run.resolve(), options.steps
    ways: dict[str, Callable[[], float]] = {
        "demo": lambda: demo(source, steps),
        "demo, without huge pages": lambda: demo(source, steps, huge=False),
        "demo, whole batches": lambda: demo(source, steps, whole=True),
        "demo, everything kept": lambda: demo(source, steps, "--config.model.remat=none"),
        "GRPO's update": lambda: float(run(GRPO, []).split()[-1]),
        "GRPO's update, whole batches": lambda: float(run(GRPO, [], whole=True).split()[-1]),
    }
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            turns[name].append(way())
            print(f"{name}: {turns[name][-1]:,.0f} tokens/s", file=sys.stderr, flush=True)
    found = {}
    for name, speeds in turns.items():
        ratios = [ours / speed for ours, speed in zip(turns[name.split(",")[0]], speeds)]
        found[name] = {"tokens_per_second": statistics.median(speeds)}
        if "," in name:
            found[name] |= {"slower_by": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}
    print(json.dumps({"kernel": ENABLED.read_text().strip(), "speeds": found}, indent=1))


if __name__ == "__main__":
    main()
