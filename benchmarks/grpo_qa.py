"""GRPO on questions about studies: BERTScore as reward, on papers that SFT has not seen, against as much more SFT.

    C2S_DATA=FOLDER python -m benchmarks.grpo_qa --encoder=FOLDER --folder=runs/qa [--seeds 0 1 2] \\
        [--only=sft|grpo|runs]

Real questions and answers, but the cells are not the studies' (``_questions``): other cells have to score as high. A
small model is tuned on some papers (``configs/sft_qa.py``); from it, for each seed, GRPO runs on others
(``configs/grpo_qa.py``), or as much more SFT on these, in seconds of processor time. All answer the questions about
further papers, greedily, also with the questions and with the cells of other papers. The encoder is a folder or a hub
id of a BERT-shaped model; openpyxl reads the questions. Intervals are over papers. Prints JSON; ``curves.png`` and
``table.md`` go into the folder.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _questions
from benchmarks._grpo_runs import ROOT, Runs, draw, interval, restored, seconds, table
from c2s_jax import evaluate, metrics, workdirs
from c2s_jax.data import Corpus
from c2s_jax.encoders import TextEncoder, load_text_encoder
from c2s_jax.evaluation import Context, controls
from c2s_jax.evaluation.texts import Asked, asked_of, text_metrics
from c2s_jax.generation import Sampling

ROOM = 96  # tokens of an answer, as in training
MOST = 1_000  # questions
PANELS = {
    "grpo/reward/bert_score": "reward: BERTScore F1",
    "train/kl": "KL from the SFT model",
    "train/entropy": "entropy of a token, nats",
    "grpo/length": "tokens an answer",
    "grpo/distinct_completions": "distinct answers",
    "grpo/truncated": "answers cut off",
}
COLUMNS = {
    "BERTScore F1": ("f1", ".3f"),
    "over SFT": ("over_sft", ".3f"),
    "over other questions": ("over_other_questions", ".3f"),
    "over other cells": ("over_other_cells", ".3f"),
    "exact": ("exact", ".3f"),
    "words": ("words", ".1f"),
    "distinct": ("distinct", ".2f"),
    "training answers": ("of_training", ".2f"),
}


def open_run(runs: Runs, workdir: Path) -> Context:
    """A run's model, to be asked about the corpus that has the test."""
    config, model = restored(workdir)
    config.data.corpus = str(runs.corpus)
    return evaluate.open_context(config, str(workdir), **model)


def answers(asked: Asked) -> dict[str, list[str]]:
    """Greedy answers to the questions, to other papers' questions, and with other papers' cells."""
    others = controls.elsewhere(asked.units, 0)
    assert others is not None
    draws = {
        "model": None,
        "other_questions": asked.examples.with_text_of("question", others),
        "other_cells": asked.examples.with_lists_of(others),
    }
    return {
        name: asked.examples.ask(sampling=Sampling(0.0), max_new_tokens=ROOM, draw=draw) for name, draw in draws.items()
    }


def run_answers(runs: Runs, workdir: Path) -> tuple[Asked, dict[str, list[str]]]:
    """The test, and what a run's model answers, kept in its folder."""
    context, path = open_run(runs, workdir), workdir / "held_out.json"
    asked = asked_of(context, "test", "qa", MOST, 0)
    assert asked is not None
    if not path.exists():
        workdirs.write_json(str(path), answers(asked))
    return asked, json.loads(path.read_text())


class Measure:
    """What is measured of answers to the test's questions."""

    def __init__(self, runs: Runs, asked: Asked, encoder: TextEncoder):
        self.encoder, self.references, self.papers = encoder, asked.references, asked.units
        self.questions = asked.examples.values("question")
        known = [q for corpus in (runs.first_corpus, runs.corpus) for q in Corpus(corpus).questions]
        self.known = [q for q in known if q.split == "train"]

    def f1(self, texts: list[str]) -> NDArray[np.float64]:
        """Of each answer."""
        return metrics.bertscore(texts, self.references, self.encoder).f1

    def over(self, f1: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
        """By how much one is above another, with its interval over papers."""
        return interval(f1 - other, self.papers)

    def figures(self, found: list[dict[str, list[str]]]) -> dict[str, Any]:
        """Of runs of several seeds; ``scores`` are the means over them of each question."""
        f1 = {name: np.array([self.f1(one[name]) for one in found]) for name in found[0]}
        scores = {name: values.mean(0) for name, values in f1.items()}
        trained = {q.answer.strip().removesuffix(".").strip() for q in self.known}
        texts = [text for one in found for text in one["model"]]
        wanted = [references for _ in found for references in self.references]
        return {
            "f1": interval(scores["model"], self.papers) | {"by_seed": f1["model"].mean(1).tolist()},
            "over_other_questions": self.over(scores["model"], scores["other_questions"]),
            "over_other_cells": self.over(scores["model"], scores["other_cells"]),
            "exact": float(np.mean([text in right for text, right in zip(texts, wanted)])),
            "words": float(np.mean([len(text.split()) for text in texts])),
            "distinct": float(np.mean([len(set(one["model"])) / len(one["model"]) for one in found])),
            "of_training": float(np.mean([text in trained for text in texts])),
            "scores": scores["model"],
        }

    def baselines(self, suite: dict[str, Any]) -> dict[str, Any]:
        """Training answers: of the suite by its rules, and that to the most similar training question."""
        asked, known = (self.encoder.encode(texts) for texts in (self.questions, [q.question for q in self.known]))
        units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asked, known)]
        nearest = [self.known[i].answer for i in (units[0] @ units[1].T).argmax(1)]
        mean_words = float(np.mean([len(texts[0].split()) for texts in self.references]))
        return {name.replace("_", " "): {"f1": one["bertscore"]} for name, one in suite["baselines"].items()} | {
            "answer to the most similar training question": {"f1": interval(self.f1(nearest), self.papers)},
            "references": {"words": mean_words, "distinct": len({x[0] for x in self.references}) / len(self.papers)},
        }


def measure(runs: Runs, seeds: list[int], encoder: TextEncoder) -> dict[str, Any]:
    """Figures of each arm and of baselines."""
    found: dict[str, Any] = {}
    for arm, paths in runs.arms(seeds).items():
        asked, kept = zip(*(run_answers(runs, path) for path in paths))
        there = Measure(runs, asked[0], encoder)
        found[arm] = there.figures(list(kept)) | {"processor_seconds": [seconds(path) for path in paths]}
    scores = {arm: row.pop("scores") for arm, row in found.items()}
    for arm in list(found)[1:]:
        found[arm]["over_sft"] = there.over(scores[arm], scores["SFT"])
    compared = there.over(scores["GRPO"], scores["more SFT, as GRPO"])
    suite = text_metrics(open_run(runs, runs.sft()), "test", "qa", encoder=encoder, layer=None, n=MOST)
    assert suite is not None
    found |= there.baselines(suite)
    count = {"questions": len(there.papers), "papers": len(set(there.papers))}
    return {"test": count, "GRPO over more SFT": compared, "figures": found, "suite of SFT": suite}


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "qa")
    parser.add_argument("--encoder", required=True, help="folder or hub id of a BERT-shaped model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("sft", "grpo", "runs"), help="end after these runs, without figures")
    given = parser.parse_args()
    data, folder = Path(os.environ.get("C2S_DATA", "")).resolve(), given.folder.resolve()
    if not os.environ.get("C2S_DATA") or not (data / _questions.SOURCE).is_file():
        sys.exit(f"error: name the folder that has {_questions.SOURCE} in C2S_DATA")
    manifests = folder / "first.yaml", folder / "second.yaml"
    if not (folder / "corpus").exists():
        manifests = _questions.prepare(data, folder)
    reward = {"bert_score": {"weight": 1.0, "encoder": given.encoder}}
    more = ["--config.optimizer.learning_rate=5e-4", "--config.optimizer.warmup_steps=5"]
    runs = Runs(
        folder,
        manifests[1],
        "qa",
        grpo={"grpo": [f"--config.grpo.rewards={reward!r}"]},
        more=more,
        words=[folder / "words.txt"],
        first=manifests[0],
    )
    runs.all(given.seeds, given.only)
    if given.only:
        return
    found = measure(runs, given.seeds, load_text_encoder(given.encoder))
    (folder / "table.md").write_text(table(found["figures"], COLUMNS))
    draw(runs, given.seeds, PANELS, folder / "curves.png")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
