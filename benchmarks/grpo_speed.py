"""Steps of GRPO on the CPU, beside TRL's and, where installed, Tunix's.

    python -m benchmarks.grpo_speed [--tunix-python=PATH] [--cases 64:0 64:0.04 512:0] [--turns=3]

A tiny Gemma-2 in float32, 8 prompts × 8 completions × 128 tokens a step, one optimizer step a phase, a reward that
costs nothing. A case is tokens of a prompt and beta. All sides have the same weights and prompts; each runs in a
process of its own, and they take turns, but for Tunix, which reads ahead and makes all its steps in one go. TRL runs
with and without recomputing activations, the first being its default.
Prints JSON: medians of seconds a step, of completion tokens a second in sampling and in what is left (log-probabilities
of the reference, rewards, update), and ratios of steps a second.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flax import nnx

from benchmarks import _grpo_work as w
from benchmarks._peer import Peer
from benchmarks.cpu_vs_hf import processor, say
from c2s_jax.models import make_model, to_hf
from c2s_jax.models.gemma2 import Gemma2Config

WARM_UP = 2
TOKENS = w.PROMPTS * w.GROUP * w.NEW


def build(folder: Path, length: int, beta: float, steps: int) -> None:
    """Weights as Hugging Face's folder and as plain arrays, and what the case is."""
    model = make_model(Gemma2Config(**w.MODEL), nnx.Rngs(0))
    to_hf(model, folder / "model")
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    arrays: dict[str, Any] = {".".join(map(str, path)): np.asarray(p.get_value()) for path, p in state}
    np.savez(folder / "weights.npz", **arrays)
    (folder / "settings.json").write_text(json.dumps({"length": length, "beta": beta, "steps": steps}))


def start(folder: Path, tunix_python: str | None, threads: int) -> dict[str, Peer]:
    """The sides by name."""
    environment = {"JAX_PLATFORMS": "cpu"}
    peers = {
        "ours": Peer("_grpo_ours_peer", str(folder), environment=environment),
        "trl": Peer("_grpo_trl_peer", str(folder), str(threads), "checkpointing", environment={"HF_HUB_OFFLINE": "1"}),
        "trl_plain": Peer("_grpo_trl_peer", str(folder), str(threads), "plain", environment={"HF_HUB_OFFLINE": "1"}),
    }
    if tunix_python:
        peers["tunix"] = Peer("_grpo_tunix_peer", str(folder), python=tunix_python, environment=environment)
    return peers


def case(length: int, beta: float, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of one case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, length, beta, WARM_UP + given.turns)
        peers = start(folder, given.tunix_python, given.threads)
        versions = {side: peer("about")["versions"] for side, peer in peers.items()}
        for peer in peers.values():
            for _ in range(WARM_UP):
                peer("step")
        turns: dict[str, list[dict[str, float]]] = {side: [] for side in peers}
        for i in range(given.turns):
            for side, peer in peers.items():
                turns[side].append(peer("step"))
            now = ", ".join(f"{side} {of[-1]['seconds']:.2f} s" for side, of in turns.items())
            say(f"prompts of {length}, beta {beta}, turn {i + 1}: {now}")
        for peer in peers.values():
            peer.close()
    figures = {side: summary(of) for side, of in turns.items()}
    ours = [turn["seconds"] for turn in turns["ours"]]
    relative = {}
    for side, of in turns.items():
        if side != "ours":
            ratios = [turn["seconds"] / mine for turn, mine in zip(of, ours)]
            ratio = figures[side]["seconds"] / figures["ours"]["seconds"]
            relative[side] = {"ratio": ratio, "least": min(ratios), "greatest": max(ratios)}
    return {"prompt": length, "beta": beta, "sides": figures, "steps_relative_to": relative, "versions": versions}


def summary(turns: list[dict[str, float]]) -> dict[str, float]:
    """Medians of a side's turns."""
    return {
        "seconds": median(turn["seconds"] for turn in turns),
        "rollout_tokens_per_second": TOKENS / median(turn["rollout"] for turn in turns),
        "update_tokens_per_second": TOKENS / median(turn["seconds"] - turn["rollout"] for turn in turns),
    }


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tunix-python", help="interpreter that has google-tunix")
    parser.add_argument("--cases", nargs="+", default=["64:0", "64:0.04", "512:0"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; JAX takes all")
    given = parser.parse_args()
    cases = [case(int(length), float(beta), given) for length, beta in (text.split(":") for text in given.cases)]
    machine = f"{os.cpu_count()} cores, {processor()}"
    print(json.dumps({"cases": cases, "machine": machine, "python": platform.python_version()}, indent=1))
    for one in cases:
        sides = ", ".join(f"{r['ratio']:.2f} × {side}" for side, r in one["steps_relative_to"].items())
        print(f"prompts of {one['prompt']}, beta {one['beta']}: {sides}", file=sys.stderr)


if __name__ == "__main__":
    main()
