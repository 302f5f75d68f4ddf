"""Training and generation of a small Gemma-2 on the CPU, beside Hugging Face torch and, where installed, Tunix.

    python -m benchmarks.cpu_vs_hf [--tunix-python=PATH] [--lengths=spread|whole] [--repeats=5]

All sides hold the same float32 weights and work on the same examples, sentences of the cells bundled in scanpy; each
runs in a process of its own, and they take turns. Prints JSON: figures, ratios, and what ran them; a summary goes to
standard error. Before anything is timed, losses and greedily decoded answers of this project and of Hugging Face are
compared; they must agree. Hugging Face's examples are batched as the reference library does (``hf``) and by length
(``hf_grouped``). Tokens are those of examples, without padding; making batches of examples is not timed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._peer import ROOT, Peer
from benchmarks._workload import STEPS, WARM_UP

# The released models' shape, scaled down; the window is shorter than the longest examples, so that it counts.
MODEL: dict[str, Any] = dict(embed_dim=384, ffw_dim=1152, num_layers=8, num_heads=6, num_kv_heads=3, head_dim=64)
MODEL |= dict(query_pre_attn_scalar=64.0, sliding_window=128)
OURS = dict(remat="dots", attention_chunk=64, accumulate=2)  # the fastest found on two cores; no result depends on it
GREEDY_PROMPTS = 4
LOSS_TOLERANCE = 1e-4


def say(*words: object) -> None:
    """A line of progress."""
    print(*words, file=sys.stderr, flush=True)


def start(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Peer], dict[str, Any], str | None]:
    """The sides by name, what they say about themselves, and why Tunix is not among them."""
    environment = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": None}
    torch = (str(folder), str(arguments.threads), str(arguments.hf_batch))
    peers = {
        "ours": Peer("_ours_peer", str(folder), json.dumps(OURS), environment=environment),
        "hf": Peer("_hf_peer", *torch, "random"),
        "hf_grouped": Peer("_hf_peer", *torch, "grouped"),
    }
    about = {name: peer("about") for name, peer in peers.items()}
    if not arguments.tunix_python:
        return peers, about, "--tunix-python names no interpreter that has google-tunix"
    tunix = Peer("_tunix_peer", *torch[::2], python=arguments.tunix_python, environment=environment)
    try:
        about["tunix"] = tunix("about")
    except RuntimeError as error:
        return peers, about, str(error)
    return {**peers, "tunix": tunix}, about, None


def check_equal_work(peers: dict[str, Peer], new_tokens: int) -> dict[str, Any]:
    """Compile and warm up every side, and compare what they compute.

    Raises
    ------
    SystemExit
        When this project and Hugging Face disagree.
    """
    compiling: dict[str, dict[str, float]] = {name: {} for name in peers}
    answers, losses = {}, {}
    for name, peer in peers.items():
        answers[name] = peer("generate", new_tokens=new_tokens, temperature=0, prompts=GREEDY_PROMPTS)["answers"]
        first, again = (peer("generate", new_tokens=new_tokens, temperature=1, prompts=None) for _ in range(2))
        compiling[name]["generate"] = round(first["seconds"] - again["seconds"], 1)
    equal = {name: sum(a == b for a, b in zip(answers["ours"], side)) for name, side in answers.items()}
    say("greedy answers equal to ours:", equal)
    if equal["hf"] < GREEDY_PROMPTS:
        raise SystemExit(f"only {equal['hf']} of {GREEDY_PROMPTS} greedy answers agree with Hugging Face's")
    for name, peer in peers.items():
        steps = [peer("train", step=i) for i in range(WARM_UP)]
        losses[name] = [step["loss"] for step in steps]
        compiling[name]["train"] = round(steps[0]["seconds"] - steps[1]["seconds"], 1)
        say(f"{name}: losses of the first steps {losses[name]}")
    difference = abs(losses["ours"][0] - losses["hf"][0])
    if difference > LOSS_TOLERANCE:
        raise SystemExit(f"losses of the first step differ by {difference:.1e}: not the same work")
    return {
        "greedy_answers": GREEDY_PROMPTS,
        "distinct_tokens_of_greedy_answers": [len(set(answer)) for answer in answers["ours"]],
        "greedy_answers_equal_to_ours": equal,
        "losses_of_first_steps": losses,
        "first_call_minus_second_seconds": compiling,
    }


def measure(
    peers: dict[str, Peer], do: str, turns: list[dict[str, Any]], useful: dict[str, float]
) -> dict[str, dict[str, Any]]:
    """Figures of each side; in every turn each side does the same once.

    Speeds are medians over turns, in positions (padding included) and in tokens (``useful``, their share).
    """
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    for i, arguments in enumerate(turns):
        for name, peer in peers.items():
            turn = peer(do, **arguments)
            speeds[name].append(turn["positions"] / turn["seconds"])
        now = ", ".join(f"{name} {each[-1] * useful[name]:,.0f}" for name, each in speeds.items())
        say(f"{do} {i + 1}/{len(turns)}, tokens/s: {now}")
    return {
        name: {
            "tokens_per_second": round(median(each) * useful[name], 1),
            "positions_per_second": round(median(each), 1),
            "padding": round(1 - useful[name], 3),
            "tokens_per_second_of_turns": [round(speed * useful[name], 1) for speed in each],
        }
        for name, each in speeds.items()
    }


def ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """Our tokens a second relative to each other side's: of the medians, and the least and greatest of a turn."""
    ours, out = figures["ours"], {}
    for name in figures.keys() - {"ours"}:
        side = figures[name]
        of_turns = [a / b for a, b in zip(*(f["tokens_per_second_of_turns"] for f in (ours, side)))]
        ratio = ours["tokens_per_second"] / side["tokens_per_second"]
        out[name] = {"ratio": round(ratio, 2), "least": round(min(of_turns), 2), "greatest": round(max(of_turns), 2)}
    return out


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tunix-python", help="interpreter that has google-tunix")
    help_ = "sentences cut to k genes, k log-uniform over the whole range, or whole ones"
    parser.add_argument("--lengths", choices=["spread", "whole"], default="spread", help=help_)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens of a packed row")
    parser.add_argument("--rows", type=int, default=8, help="packed rows a step")
    parser.add_argument("--hf-batch", type=int, default=8, help="examples a batch; the Trainer's default is 8")
    parser.add_argument("--prompts", type=int, default=32, help="answers generated at once")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; JAX takes all")
    arguments = parser.parse_args()
    if not 1 <= arguments.repeats <= STEPS - WARM_UP:
        parser.error(f"--repeats={arguments.repeats} must be between 1 and {STEPS - WARM_UP}")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    settings = {k: getattr(arguments, k) for k in ("lengths", "seq_len", "rows", "prompts")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "benchmarks._build_workload", name, json.dumps(settings | {"model": MODEL})]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr, env=environment)
        peers, about, no_tunix = start(arguments, folder)
        checks = check_equal_work(peers, arguments.new_tokens)
        generate = dict(new_tokens=arguments.new_tokens, temperature=1, prompts=None)
        steps = [{"step": i} for i in range(WARM_UP, WARM_UP + arguments.repeats)]
        figures: dict[str, dict[str, Any]] = {
            "generation": measure(peers, "generate", [generate] * arguments.repeats, dict.fromkeys(peers, 1.0)),
            "training": measure(peers, "train", steps, {name: about[name]["useful"] for name in peers}),
        }
        for peer in peers.values():
            peer.close()
    relative = {what: ratios(sides) for what, sides in figures.items()}
    if no_tunix:
        figures = {what: sides | {"tunix": None} for what, sides in figures.items()}
    sizes = {k: v for k, v in vars(arguments).items() if k != "tunix_python"}
    result = {
        "benchmark": "cpu_vs_hf",
        **figures,
        "ours_relative_to": relative,
        "tunix_left_out": no_tunix,
        "checks": checks,
        "sizes": sizes | {"model": MODEL, "ours": OURS, "parameters": about["ours"]["parameters"]},
        "machine": f"{os.cpu_count()} cores, {processor()}",
        "versions": {name: side["versions"] for name, side in about.items()},
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))
    for what, sides in relative.items():
        others = ", ".join(f"{side['ratio']:.2f} × {name}" for name, side in sorted(sides.items()))
        say(f"{what}: {figures[what]['ours']['tokens_per_second']:,.0f} tokens/s, {others}")


if __name__ == "__main__":
    main()
