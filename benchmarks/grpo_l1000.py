"""GRPO on L1000 profiles: A375 and 59 compounds, with Kendall's tau on apoptosis genes as reward.

    C2S_DATA=FOLDER python -m benchmarks.grpo_l1000 --folder=runs/l1000 [--seeds 0 1 2] [--only=sft|grpo|runs]

One cell line takes the place of the paper's many: of half of the compounds, half of the doses are held out
(``data_pipeline.hold_out``). Profiles are cut to the apoptosis genes and the most variable others. What is compared:
the order of the apoptosis genes, and apart that of the others, in a profile that a model writes for an untreated one, a
compound and a dose, with that in the real profile. GRPO is run with tau alone as reward, as the paper has it; with
shares of the profile's genes and of words that are no repeats beside it; and with the tau of all genes beside these, at
a lower learning rate and a larger beta. Baselines: one untreated profile, and means of
training profiles. Prints JSON; ``curves.png`` and ``table.md`` go into the folder.
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
from numpy.typing import NDArray

from benchmarks import _public_tables
from benchmarks._grpo_runs import ROOT, Runs, draw, interval, restored, seconds, table
from c2s_jax import workdirs
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
    "grpo/reward/gene_overlap": "reward: share of the profile's genes",
    "grpo/reward/valid_genes": "reward: valid genes, no repeats",
    "train/kl": "KL from the SFT model",
    "train/entropy": "entropy of a token, nats",
    "grpo/genes_per_completion": "genes a profile",
}
COLUMNS = {
    "τ, apoptosis genes": ("tau", ".3f"),
    "τ, other genes": ("tau_other", ".3f"),
    "valid": ("valid", ".3f"),
    "unique": ("unique", ".3f"),
    "genes": ("genes", ".1f"),
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
    config, model = restored(workdir)
    corpus_dir, tokenizer_path = workdirs.data_paths(config, str(workdir))
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    asked = PromptStream(corpus, "test", mixture(config), formatter, seq_len=512, seed=0)
    n = int((corpus.cells("test").fields("perturbation") != CONTROL).sum())
    prompts = asked.take(0, n)
    path = workdir / "held_out.json"
    if not path.exists():
        settings = dict(stop_ids=tokenizer.stop_ids, pad_id=tokenizer.pad_id, vocab_size=tokenizer.vocab_size)
        sampler = Sampler(model["graphdef"], batch_size=64, mesh=model["mesh"], **settings)
        samples = sampler(model["params"], prompts.tokens, max_new_tokens=160, sampling=Sampling(), seed=seed)
        workdirs.write_json(str(path), samples.texts(tokenizer.decode))
    texts = json.loads(path.read_text())
    references = [tokenizer.decode(ids.tolist()) for ids in prompts.references]
    zeros = np.zeros(n, np.int64)
    world = World(corpus, "test")
    return Completions(world, texts, references, prompts.tasks, prompts.cells, np.arange(n), zeros, zeros > 0, 1)


def sets(corpus: Corpus, genes: str) -> dict[str, str]:
    """The genes of the reward, and all others."""
    others = np.setdiff1d(np.arange(len(corpus.genes)), chosen_genes(corpus, genes))
    return {"tau": genes, "tau_other": ",".join(corpus.genes.names[i] for i in others)}


def figures(found: list[Completions], genes: str) -> dict[str, Any]:
    """Tau of profiles whose compound and dose are held out, with its 95 % interval over them; validity."""
    chosen, out = held_out(found[0]), dict[str, Any]()
    for key, which in sets(found[0].world.corpus, genes).items():
        by_seed = np.array([kendall_tau(one.world, genes=which)(one)[chosen] for one in found])
        out[key] = interval(by_seed.mean(0)) | {"by_seed": by_seed.mean(1).tolist()}
    reports = [report for one in found for _, report in one.repaired]
    words = sum(r.n_words for r in reports)
    return out | {
        "valid": sum(r.n_valid for r in reports) / words,
        "unique": 1 - sum(r.n_duplicate for r in reports) / words,
        "genes": float(np.mean([len(ids) for one in found for ids in one.genes])),
    }


def held_out(found: Completions) -> NDArray[np.bool_]:
    """Profiles whose compound and dose no training profile has."""
    train = found.world.corpus.cells("train")
    known = set(zip(train.fields("perturbation").tolist(), train.fields("dose").tolist()))
    return np.array([pair not in known for pair in zip(found.field("perturbation"), found.field("dose"))])


def baselines(found: Completions, genes: str) -> dict[str, Any]:
    """An untreated profile, and means of training profiles, in the place of what a model writes."""
    corpus, chosen = found.world.corpus, held_out(found)
    train = corpus.cells("train")
    control = train.fields("perturbation") == CONTROL
    expression = train.take(np.arange(len(train))).matrix(len(corpus.genes)).toarray()
    real = corpus.cells("test").take(found.cells[chosen]).matrix(len(corpus.genes)).toarray()
    stand_ins = {
        "an untreated profile": expression[control][np.flatnonzero(chosen) % control.sum()],
        "mean treated profile of training": np.broadcast_to(expression[~control].mean(0), real.shape),
        "mean untreated profile of training": np.broadcast_to(expression[control].mean(0), real.shape),
    }
    ids = {key: chosen_genes(corpus, which) for key, which in sets(corpus, genes).items()}
    return {
        name: {key: interval(kendall_tau_b(made[:, at], real[:, at])) for key, at in ids.items()}
        for name, made in stand_ins.items()
    }


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
    share = {"gene_overlap": {"weight": 1.0}, "valid_genes": {"weight": 1.0}}
    tau = {"kendall_tau": {"weight": 1.0, "genes": genes}}
    order = {"every_gene": {"weight": 1.0, "path": "c2s_jax.rl.rewards.ranks:kendall_tau"}}
    grpo = {
        "grpo": [f"--config.grpo.rewards={tau!r}"],
        "whole": [f"--config.grpo.rewards={tau | share!r}"],
        "slow": [
            f"--config.grpo.rewards={tau | share | order!r}",
            "--config.optimizer.learning_rate=1.5e-4",
            "--config.grpo.beta=0.05",
        ],
    }
    runs = Runs(folder, manifest, "l1000", grpo=grpo, more=more, alike=True)
    runs.all(given.seeds, given.only)
    if given.only:
        return
    found: dict[str, Any] = {}
    for arm, paths in runs.arms(given.seeds).items():
        answers = [completions(path, seed=i) for i, path in enumerate(paths)]
        found[arm] = figures(answers, genes) | {"processor_seconds": [seconds(path) for path in paths]}
    found |= baselines(answers[0], genes)
    (folder / "table.md").write_text(table(found, COLUMNS))
    draw(runs, given.seeds, PANELS, folder / "curves.png")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
