"""Scaling laws: train a ladder of sizes on the same rows, fit the held-out loss, predict the next size.

    python -m c2s_jax.scaling --configs=configs/scaling.py:32x2,configs/scaling.py:48x2,... --workdir=runs/scaling \\
        --config.data.corpus=CORPUS --config.data.tokenizer=TOKENIZER

    --configs    config files, one a run; each trains in a folder of --workdir named after it
    --config.*   values for all of them
    --held_out   so many of the largest runs are left out of the fit and predicted (1)
    --after      share of a run's tokens before which validations are not fitted (0.25)

Runs that go on from another ladder, with all parameters or with adapters, are told together when they read the same:
configs/scaling.py:64x4@runs/scaling,configs/scaling.py:64x4+lora@runs/scaling,...

Held-out loss is the run's validation loss, on the same rows for every size, over all tasks and for each. Runs that are
finished are not trained again, and one that was interrupted goes on. Fitted are L(N) after the last step, N without
embeddings; L(D) of each run; and L(N, D) over all validations. Adapters (``lora.rank``) have laws of their own. Writes
``scaling.json`` and ``scaling.png``.
"""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from c2s_jax import workdirs
from c2s_jax.aot.flops import training_flops_per_token
from c2s_jax.config import differences, lora_config, model_config
from c2s_jax.metrics.power_law import PowerLaw, band, bootstrap_power_law, fit_power_law
from c2s_jax.models import ModelConfig, lora, make_model, num_parameters
from c2s_jax.report.curves import read_metrics
from c2s_jax.report.scaling import Fitted, Rung, scaling_figure
from c2s_jax.text import load_tokenizer

METRIC = "validation/loss"
SAME = ("data", "seed", "steps", "batch_size", "validation_rows", "validate_every")  # or rungs cannot be compared


def train_ladder(configs: list[str], workdir: Path, settings: list[str]) -> list[Path]:
    """Train what is not finished, each configuration in a process of its own; the runs' folders."""
    folders = [workdir / name_of(config) for config in configs]
    if len(set(folders)) < len(folders):
        raise ValueError(f"--configs names a run twice: {', '.join(configs)}")
    for config, folder in zip(configs, folders):
        if finished(folder):
            workdirs.say(f"{folder} is finished")
            continue
        command = [sys.executable, "-m", "c2s_jax.train", f"--config={config}", f"--workdir={folder}", *settings]
        workdirs.say(" ".join(command[1:]))
        if (status := subprocess.run(command, check=False).returncode) != 0:
            raise ValueError(f"{config} ended with status {status}; the same command goes on from there")
    return folders


def name_of(config: str) -> str:
    """``configs/scaling.py:64x4+lora@runs/base`` → ``scaling_64x4_lora_runs_base``."""
    file, _, argument = config.partition(":")
    return "_".join([Path(file).stem, *re.findall(r"[\w.]+", argument)])


def finished(folder: Path) -> bool:
    """Whether the run in `folder` has been validated after its last step."""
    if not (folder / "config.json").exists() or not (folder / "metrics.jsonl").exists():
        return False
    steps, _ = read_metrics(folder / "metrics.jsonl").get(METRIC, (np.zeros(0), None))
    return len(steps) > 0 and int(steps[-1]) == json.loads((folder / "config.json").read_text())["steps"]


def read_rung(folder: Path) -> Rung:
    """What a finished run has to say."""
    config = ConfigDict(json.loads((folder / "config.json").read_text()))
    vocab_size = config.model.vocab_size
    if not vocab_size:
        vocab_size = load_tokenizer(workdirs.data_paths(config, str(folder))[1]).vocab_size
    architecture = model_config(config, vocab_size=vocab_size)
    model = nnx.eval_shape(lambda: make_model(architecture, nnx.Rngs(0)))
    adapter = adapter_parameters(architecture, lora_config(config))
    tables = sum(int(np.prod(x.shape)) for x in embeddings(model))
    series = read_metrics(folder / "metrics.jsonl")
    steps = series[METRIC][0]
    useful = float(series["train/useful_token_share"][1].mean())
    places = steps * config.batch_size * config.data.seq_len
    flops = training_flops_per_token(architecture, config.data.seq_len, frozen=bool(config.lora.rank))
    return Rung(
        name=folder.name,
        kind="LoRA" if config.lora.rank else "full",
        parameters=num_parameters(model) - tables,
        embedding_parameters=tables,
        trained_parameters=adapter or num_parameters(model),
        tokens=places * useful,
        flops=float(places[-1] * flops),
        losses={name: values for name, (_, values) in series.items() if name.startswith(METRIC)},
    )


def embeddings(model: nnx.Module) -> list[Any]:
    """Tables of token embeddings, in and out."""
    state = nnx.state(model, nnx.Param)
    return [x for path, x in nnx.to_flat_state(state) if any("embed" in str(p) or "head" in str(p) for p in path[:1])]


def adapter_parameters(architecture: ModelConfig, adapter: lora.LoRAConfig | None) -> int:
    """Parameters of an adapter alone; 0 without one."""
    if adapter is None:
        return 0

    def make() -> nnx.Module:
        model = make_model(architecture, nnx.Rngs(0))
        lora.add(model, adapter, nnx.Rngs(0))
        return model

    return num_parameters(nnx.state(nnx.eval_shape(make), nnx.LoRAParam))


def check_same(folders: list[Path]) -> None:
    """Refuse runs that read other rows."""
    first, *others = (json.loads((f / "config.json").read_text()) for f in folders)
    for folder, config in zip(folders[1:], others):
        if changed := differences({k: first[k] for k in SAME}, {k: config[k] for k in SAME}):
            raise ValueError(f"{folders[0]} and {folder} cannot be compared:\n  " + "\n  ".join(changed))


def fit(rungs: list[Rung], *, held_out: int, after: float) -> dict[str, Fitted]:
    """Laws of each metric over all but the `held_out` largest rungs of one kind."""
    rungs = sorted(rungs, key=lambda r: r.parameters)
    known = rungs[: len(rungs) - held_out]
    out = {}
    for metric in rungs[0].losses:
        sizes, last = [r.parameters for r in known], [r.losses[metric][-1] for r in known]
        law = fit_power_law([sizes], last)
        laws = bootstrap_power_law([sizes], last, law)
        points = [
            (number, r.parameters, d, loss)
            for number, r in enumerate(known)
            for d, loss in zip(r.tokens, r.losses[metric])
            if d > after * r.tokens[-1]
        ]
        group, n, d, loss = map(np.array, zip(*points))
        joint = fit_power_law([n, d], loss)
        joint_laws = bootstrap_power_law([n, d], loss, joint, groups=group)
        by_tokens = {
            r.name: fit_power_law([r.tokens[late]], r.losses[metric][late])
            for r in known
            for late in [r.tokens > after * r.tokens[-1]]
        }
        out[metric] = Fitted(law, laws, joint, joint_laws, by_tokens)
    return out


def predictions(rungs: list[Rung], fits: dict[str, Fitted], held_out: int) -> list[dict[str, Any]]:
    """Each held-out rung beside what the others say of it, and the next size, which nobody has trained."""
    rungs = sorted(rungs, key=lambda r: r.parameters)
    step = rungs[-1].parameters / rungs[-2].parameters
    following = dataclasses.replace(rungs[-1], name="next", parameters=round(rungs[-1].parameters * step), losses={})
    out = []
    for rung in [*rungs[len(rungs) - held_out :], following]:
        for metric, f in fits.items():
            n, d = rung.parameters, rung.tokens[-1]
            one: dict[str, Any] = {"run": rung.name, "metric": metric, "parameters": n, "tokens": float(d)}
            one |= {"by_size": _told(f.law, f.laws, n), "by_size_and_tokens": _told(f.joint, f.joint_laws, n, d)}
            if rung.losses:
                one["measured"] = float(rung.losses[metric][-1])
                one["error"] = one["by_size"]["loss"] / one["measured"] - 1
            out.append(one)
    return out


def _told(law: PowerLaw, laws: list[PowerLaw], *at: float) -> dict[str, Any]:
    low, high = band(laws, *at)
    return {"loss": float(law(*at)), "band_90": [float(low), float(high)]}


def report(folders: list[Path], workdir: Path, *, held_out: int, after: float) -> dict[str, Any]:
    """Fit, predict, draw and write; returns what ``scaling.json`` holds."""
    check_same(folders)
    rungs = [read_rung(folder) for folder in folders]
    out: dict[str, Any] = {"runs": [r.to_json() for r in rungs], "laws": {}, "predictions": {}}
    figures = {}
    for kind in sorted({r.kind for r in rungs}):
        chosen = [r for r in rungs if r.kind == kind]
        if len(chosen) - held_out < 4:
            raise ValueError(
                f"{len(chosen)} runs ({kind}), {held_out} of them held out: a law of three parameters and its bands "
                "need at least four others"
            )
        figures[kind] = fit(chosen, held_out=held_out, after=after)
        out["laws"][kind] = {metric: f.to_json() for metric, f in figures[kind].items()}
        out["predictions"][kind] = predictions(chosen, figures[kind], held_out)
    picture = scaling_figure(rungs, figures, METRIC, held_out=held_out, after=after)
    (workdir / "scaling.png").write_bytes(picture.png)
    workdirs.write_json(str(workdir / "scaling.json"), out)
    return out


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", required=True, type=lambda text: text.split(","))
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--held_out", type=int, default=1)
    parser.add_argument("--after", type=float, default=0.25)
    given, settings = parser.parse_known_args()
    if unknown := [s for s in settings if not s.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(unknown)}; values of configurations are given as --config.key=value")
    if given.held_out < 1 or not 0 <= given.after < 1:
        parser.error("--held_out must be at least 1, and --after from 0 to below 1")
    try:
        folders = train_ladder(given.configs, given.workdir, settings)
        found = report(folders, given.workdir, held_out=given.held_out, after=given.after)
    except (ValueError, OSError) as error:
        sys.exit(f"FATAL {error}")
    for kind, told in found["predictions"].items():
        for one in told:
            loss, (low, high) = one["by_size"]["loss"], one["by_size"]["band_90"]
            measured = f", measured {one['measured']:.4f}" if "measured" in one else ""
            print(f"{kind} {one['run']} {one['metric']}: predicted {loss:.4f} [{low:.4f}, {high:.4f}]{measured}")
    print(f"Written: {given.workdir / 'scaling.json'}, {given.workdir / 'scaling.png'}")


if __name__ == "__main__":
    main()
