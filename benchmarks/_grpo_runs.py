"""SFT, then GRPO by one reward or several against as much more SFT: each run once, in a folder of its own."""

import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from c2s_jax import evaluate

ROOT = Path(__file__).parent.parent
SPENT = "processor_seconds.json"


class Runs:
    """Runs on one corpus, at ``--config.scale=small``.

    Parameters
    ----------
    folder
        Gets ``corpus``, ``tokenizer.model`` and a workdir for each run.
    manifest
        Of the corpus, read if there is none yet.
    first
        Manifest of another corpus, of the SFT that all start from and of the tokenizer; by default the same.
    recipe
        Name of the configurations ``sft_<recipe>`` and ``grpo_<recipe>``.
    grpo
        Further flags of GRPO by its name, which begins the names of its workdirs; one name is "grpo".
    more
        Further flags of more SFT.
    every
        Further flags of every run.
    alike
        All kinds of GRPO take as long as the first, so that its more SFT stands beside all.
    words
        Text files whose words should be pieces of the tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Path,
        recipe: str,
        *,
        grpo: Mapping[str, Sequence[str]],
        more: Sequence[str] = (),
        every: Sequence[str] = (),
        alike: bool = False,
        words: Sequence[Path] = (),
        first: Path | None = None,
    ):
        self.folder, self.recipe, self._grpo = folder, recipe, dict(grpo)
        self._more, self._every = list(more), list(every)
        self._timed = self.names[:1] if alike else self.names
        self.corpus, self.tokenizer = folder / "corpus", folder / "tokenizer.model"
        self.first_corpus = folder / "first_corpus" if first else self.corpus
        for source, corpus in ((manifest, self.corpus), (first or manifest, self.first_corpus)):
            if not corpus.exists():
                self._run("data_pipeline.build", f"--manifest={source}", f"--output={corpus}")
        if not self.tokenizer.exists():
            texts = [f"--texts={','.join(map(str, words))}"] if words else []
            self._run("data_pipeline.tokenizer", f"--corpus={self.first_corpus}", f"--output={self.tokenizer}", *texts)

    def sft(self) -> Path:
        """The model that all start from."""
        return self._train("sft", self.folder / "sft")

    def grpo(self, seed: int, name: str = "grpo") -> Path:
        """GRPO from it."""
        flags = [f"--config.seed={seed}", *self._grpo[name]]
        return self._train("grpo", self.folder / f"{name}{seed}", *flags, start=self.sft())

    def more_sft(self, seed: int, name: str = "grpo") -> Path:
        """SFT from it, for as many seconds of processor time as GRPO of the seed took."""
        a_step = seconds(self.sft()) / settings(self.sft())["steps"]
        flags = [
            f"--config.seed={seed}",
            f"--config.steps={round(seconds(self.grpo(seed, name)) / a_step)}",
            *self._more,
        ]
        return self._train("sft", self.folder / f"{_more(name)}{seed}", *flags, start=self.sft())

    def all(self, seeds: Sequence[int], only: str | None) -> None:
        """Every run that is asked for: ``"sft"``, ``"grpo"``, or by default all."""
        self.sft()
        for seed, name in itertools.product(seeds if only != "sft" else (), self._grpo):
            self.grpo(seed, name)
        for seed, name in itertools.product(seeds if only in (None, "runs") else (), self._timed):
            self.more_sft(seed, name)

    def arms(self, seeds: Sequence[int]) -> dict[str, list[Path]]:
        """Workdirs to compare, by name."""
        found = {"SFT": [self.sft()]}
        for name in self._grpo:
            if name in self._timed:
                found[f"more SFT, as {self.called(name)}"] = [self.more_sft(seed, name) for seed in seeds]
            found[self.called(name)] = [self.grpo(seed, name) for seed in seeds]
        return found

    @staticmethod
    def called(name: str) -> str:
        """Of GRPO, for people."""
        return "GRPO" if name == "grpo" else f"GRPO, {name}"

    @property
    def names(self) -> list[str]:
        """Of GRPO's kinds."""
        return list(self._grpo)

    def _train(self, kind: str, workdir: Path, *flags: str, start: Path | None = None) -> Path:
        if not (workdir / SPENT).exists():
            given = [f"--config.init_from={start}"] if start else []
            command = [f"--config=configs/{kind}_{self.recipe}.py", "--config.scale=small", f"--workdir={workdir}"]
            corpus = self.corpus if start else self.first_corpus
            data = [f"--config.data.corpus={corpus}", f"--config.data.tokenizer={self.tokenizer}"]
            spent = self._run("c2s_jax.train", *command, *data, *given, *self._every, *flags)
            (workdir / SPENT).write_text(json.dumps(spent))
        return workdir

    def _run(self, module: str, *flags: str) -> float:
        """Seconds of processor time of a command."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", module, *flags], cwd=ROOT, check=True, stdout=sys.stderr)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _more(name: str) -> str:
    return "more" if name == "grpo" else f"more_{name}"


def seconds(workdir: Path) -> float:
    """Of processor time that a run took."""
    return json.loads((workdir / SPENT).read_text())


def settings(workdir: Path) -> dict[str, Any]:
    """Of a run."""
    return json.loads((workdir / "config.json").read_text())


def restored(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """Configuration and newest model of a run; what is said of them goes where errors go."""
    config = ConfigDict(settings(workdir))
    with redirect_stdout(sys.stderr):
        return config, evaluate.restore(config, str(workdir))[1]


def curve(workdir: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric of a run."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = [(row["step"], row[key]) for row in rows if key in row]
    return [step for step, _ in found], [value for _, value in found]


def interval(values: NDArray[np.float64], of: NDArray | None = None) -> dict[str, float]:
    """Mean of values [N], its 95 % bootstrap interval and how many; groups ``of`` [N] are drawn whole, if given."""
    of = np.arange(len(values)) if of is None else np.unique(of, return_inverse=True)[1]
    sums, counts = np.bincount(of, values), np.bincount(of)
    drawn = np.random.default_rng(0).integers(0, len(counts), (2_000, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def table(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """Markdown of what was measured, a row each; columns by title: key and format. A dict has an interval."""

    def cell(value: Any, form: str) -> str:
        if isinstance(value, Mapping):
            return f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"
        return "" if value is None else f"{value:{form}}"

    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(row.get(key), form) for key, form in columns.values())} |")
    return "\n".join(lines) + "\n"


def draw(runs: Runs, seeds: Sequence[int], panels: dict[str, str], path: Path) -> None:
    """Curves of GRPO by metric, six at most, with their titles."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 6), constrained_layout=True)
    for axis, (key, title) in zip(axes.ravel(), panels.items()):
        for (name, style), seed in itertools.product(zip(runs.names, ("-", "--", ":")), seeds):
            label = f"{runs.called(name)}, seed {seed}"
            axis.plot(*curve(runs.grpo(seed, name), key), style, color=f"C{seed}", label=label, linewidth=1)
        axis.set(title=title, xlabel="optimizer step")
    for axis in axes.ravel()[len(panels) :]:
        axis.set_axis_off()
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(seeds), frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)
