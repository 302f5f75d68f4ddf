"""GRPO on L1000 profiles: A375 and 59 compounds, with Kendall's tau on apoptosis genes as reward.

    C2S_DATA=FOLDER python -m benchmarks.grpo_l1000 --folder=runs/l1000 [--seeds 0 1 2] [--only=sft|grpo|runs]

One cell line takes the place of the paper's many: of half of the compounds, half of the doses are held out
(``data_pipeline.hold_out``). Profiles are cut to the apoptosis genes and the most variable others. What is compared:
the order of the apoptosis genes in a profile that a model writes for an untreated one, a compound and a dose, with that
in the real profile. Baselines: one untreated profile, and means of training profiles. Prints JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ml_collections import ConfigDict
from numpy.typing import NDArray

from benchmarks import _public_tables
from benchmarks._grpo_runs import ROOT, Runs, draw, seconds
from c2s_jax import evaluate, workdirs
from c2s_jax.config import mixture
from c2s_jax.data import Corpus, Formatter, PromptStream
from c2s_jax.data.chosen_genes import chosen_genes
from c2s_jax.generation import Sampler, Sampling
from c2s_jax.metrics import kendall_tau_b
from c2s_jax.rl.rewards import Completions, World
from c2s_jax.rl.rewards.ranks import kendall_tau
from c2s_jax.text import GeneTokenTable, load_tokenizer

SOURCE, SETS = "l1000_landmarks/test_l1000.gct", "genesets_msigdb/h.all.v7.5.1.symbols.gmt"
SET, CONTROL, OTHERS = "HALLMARK_APOPTOSIS", "DMSO", 100
PANELS = {
    "grpo/reward/kendall_tau": "reward: τ, apoptosis genes",
    "train/kl": "KL from the SFT model",
    "train/entropy": "entropy of a token, nats",
    "grpo/genes_per_completion": "genes a profile",
}


def prepare(data: Path, folder: Path) -> Path:
    """Write profiles of the chosen genes and the manifest; the latter."""
    profiles = _public_tables.gct(data / SOURCE)
    lines = (line.split("\t") for line in (data / SETS).read_text().splitlines())
    inside = profiles.var_names.isin(next(genes for name, _, *genes in lines if name == SET))
    variable = np.argsort(-np.where(inside, 0.0, np.asarray(profiles.X).var(0)))[:OTHERS]
    kept = inside.copy()
    kept[variable] = True
    folder.mkdir(parents=True, exist_ok=True)
    profiles[:, kept].copy().write_h5ad(folder / "l1000.h5ad")
    columns = {"cell_type": "cell_id", "perturbation": "pert_iname", "dose": "pert_idose", "time": "pert_itime"}
    entry = {"path": "l1000.h5ad", "organism": "human", "columns": columns, "control": CONTROL, "scale": "log2p"}
    manifest = {"datasets": [entry], "split": "80/10/10", "stratify": "perturbation"}
    path = folder / "l1000.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    rule = ["--within=dose", "--groups=29", "--fewer_than=1000"]
    command = [sys.executable, "-m", "data_pipeline.hold_out", f"--manifest={path}", *rule]
    held_out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    path.write_text(path.read_text() + held_out)
    return path


def completions(workdir: Path, *, seed: int) -> Completions:
    """What a run's model writes for every treated test profile, kept in its folder."""
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    restored = evaluate.restore(config, str(workdir))
    corpus_dir, tokenizer_path = workdirs.data_paths(config, str(workdir))
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    asked = PromptStream(corpus, "test", mixture(config), formatter, seq_len=512, seed=0)
    n = int((corpus.cells("test").fields("perturbation") != CONTROL).sum())
    prompts = asked.take(0, n)
    path = workdir / "held_out.json"
    if not path.exists():
        settings = dict(stop_ids=tokenizer.stop_ids, pad_id=tokenizer.pad_id, vocab_size=tokenizer.vocab_size)
        sampler = Sampler(restored["graphdef"], batch_size=64, mesh=restored["mesh"], **settings)
        samples = sampler(restored["params"], prompts.tokens, max_new_tokens=160, sampling=Sampling(), seed=seed)
        workdirs.write_json(str(path), samples.texts(tokenizer.decode))
    texts = json.loads(path.read_text())
    references = [tokenizer.decode(ids.tolist()) for ids in prompts.references]
    zeros = np.zeros(n, np.int64)
    world = World(corpus, "test")
    return Completions(world, texts, references, prompts.tasks, prompts.cells, np.arange(n), zeros, zeros > 0, 1)


def figures(found: list[Completions], genes: str) -> dict[str, Any]:
    """Tau, its 95 % interval over profiles, of all and of those whose compound and dose are held out; validity."""
    tau = np.mean([kendall_tau(one.world, genes=genes)(one) for one in found], axis=0)
    reports = [report for one in found for _, report in one.repaired]
    words = sum(r.n_words for r in reports)
    return {
        "held_out": interval(tau[held_out(found[0])]),
        "all": interval(tau),
        "valid": sum(r.n_valid for r in reports) / words,
        "unique": 1 - sum(r.n_duplicate for r in reports) / words,
        "genes": float(np.mean([len(ids) for one in found for ids in one.genes])),
    }


def held_out(found: Completions) -> NDArray[np.bool_]:
    """Profiles whose compound and dose no training profile has."""
    train = found.world.corpus.cells("train")
    known = set(zip(train.fields("perturbation").tolist(), train.fields("dose").tolist()))
    return np.array([pair not in known for pair in zip(found.field("perturbation"), found.field("dose"))])


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, its bootstrap interval, and how many."""
    drawn = np.random.default_rng(0).integers(0, len(values), (2_000, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def baselines(found: Completions, genes: str) -> dict[str, Any]:
    """Mean untreated and mean treated training profile in the place of what a model writes."""
    corpus = found.world.corpus
    ids, train = chosen_genes(corpus, genes), corpus.cells("train")
    expression = train.take(np.arange(len(train))).matrix(len(corpus.genes)).toarray()[:, ids]
    real = corpus.cells("test").take(found.cells).matrix(len(corpus.genes)).toarray()[:, ids]
    control = train.fields("perturbation") == CONTROL
    chosen = held_out(found)
    out = {}
    for name, rows in (("mean untreated profile", control), ("mean treated profile", ~control)):
        tau = kendall_tau_b(np.broadcast_to(expression[rows].mean(0), real.shape), real)
        out[name] = {"held_out": interval(tau[chosen]), "all": interval(tau)}
    one = expression[control][np.arange(len(real)) % control.sum()]
    tau = kendall_tau_b(one, real)
    return out | {"an untreated profile": {"held_out": interval(tau[chosen]), "all": interval(tau)}}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "l1000")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("sft", "grpo", "runs"), help="end after these runs, without figures")
    given = parser.parse_args()
    data = Path(os.environ.get("C2S_DATA", "")).resolve()
    if not os.environ.get("C2S_DATA") or not (data / SOURCE).is_file():
        sys.exit(f"error: name the folder that has {SOURCE} in C2S_DATA")
    folder, genes = given.folder.resolve(), f"{data / SETS}:{SET}"
    manifest = folder / "l1000.yaml" if (folder / "corpus").exists() else prepare(data, folder)
    more = ["--config.optimizer.learning_rate=5e-4", "--config.optimizer.warmup_steps=5"]
    runs = Runs(
        folder, manifest, "l1000", grpo={"grpo": [f"--config.grpo.rewards.kendall_tau.genes={genes}"]}, more=more
    )
    runs.all(given.seeds, given.only)
    if given.only:
        return
    found: dict[str, Any] = {}
    for arm, paths in runs.arms(given.seeds).items():
        answers = [completions(path, seed=i) for i, path in enumerate(paths)]
        found[arm] = figures(answers, genes) | {"processor_seconds": [seconds(path) for path in paths]}
    found |= baselines(answers[0], genes)
    draw(runs, given.seeds, PANELS, folder / "curves.png")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
