"""The steps of a build as Apache Beam pipelines. Needs the extra ``beam``."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from c2s_jax.cells.errors import CellDataError
from data_pipeline.jobs import Job, Unit, is_resumable
from data_pipeline.steps import Advance, Worker
from data_pipeline.writer import CorpusWriteError, write_json

RUNNERS = {
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "portable": "PortableRunner",
    "prism": "PrismRunner",
    "spark": "SparkRunner",
}
_FAILURE = "failed-{}.json"


class Beam:
    """A pipeline for each step, an element for each unit. A context manager, see `workers.Runner`.

    Parameters
    ----------
    job : Job
    runner : str
        "direct" (this machine), a key of `RUNNERS`, or a runner's own name.
    options : sequence of str
        Further options of Beam, e.g. ``--direct_num_workers=4``. Workers on other machines need this package and its
        dependencies, and must see inputs and output under the same paths.

    Raises
    ------
    ValueError
        If a source is in memory, where workers do not find it.
    """

    def __init__(self, job: Job, runner: str, options: Sequence[str] = ()) -> None:
        if not is_resumable(job.sources):
            raise ValueError("Beam's workers read files: write AnnData that is in memory to .h5ad files first")
        self._job, self._runner, self._options = job, runner, list(options)

    def run(self, kind: str, units: Sequence[Unit], advance: Advance) -> None:
        """Do a step for all units; cells are counted once all are done."""
        elements = [(unit.dataset, unit.number, unit.start, unit.stop) for unit in units]
        for unit in units:
            self._failure(kind, unit).unlink(missing_ok=True)
        try:
            with beam.Pipeline(runner=self._chosen(), options=PipelineOptions(self._arguments())) as pipeline:
                _ = (
                    pipeline
                    | "units" >> beam.Create(elements)
                    | "spread" >> beam.Reshuffle()
                    | kind >> beam.ParDo(_Step(self._job, kind))
                )
        except Exception as error:  # runners wrap what a step raised in ways of their own
            for unit in units:
                if self._failure(kind, unit).is_file():
                    raise _error(json.loads(self._failure(kind, unit).read_text("utf-8"))) from error
            raise
        advance(sum(map(len, units)))

    def _failure(self, kind: str, unit: Unit) -> Any:
        return self._job.staging.work / _FAILURE.format(unit.step(kind))

    def _chosen(self) -> Any:
        # The name DirectRunner stands for a program of its own that Beam downloads.
        return FnApiRunner() if self._runner == "direct" else None

    def _arguments(self) -> list[str]:
        if self._runner == "direct":
            return self._options
        return [f"--runner={RUNNERS.get(self._runner, self._runner)}", *self._options]

    def __enter__(self) -> "Beam":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Step(beam.DoFn):
    """Does one step for the units it is given."""

    def __init__(self, job: Job, kind: str) -> None:
        self._job, self._kind = job, kind
        self._cells = Metrics.counter("c2s_jax", f"cells {kind}")

    def setup(self) -> None:
        self._worker = Worker(self._job)

    def process(self, element: tuple[int, int, int, int]) -> Iterator[None]:
        unit = Unit(*element)
        try:
            self._worker.run(self._kind, unit, self._cells.inc)
        except (ValueError, OSError) as error:
            path = self._job.staging.work / _FAILURE.format(unit.step(self._kind))
            failure = {"number": getattr(error, "errno", None), "text": str(error.args[-1] if error.args else error)}
            write_json(path, self._job.staging.output, failure)
            raise
        return iter(())

    def teardown(self) -> None:
        self._worker.close()


def _error(failure: dict[str, Any]) -> Exception:
    if failure["number"] is None:
        return CellDataError(failure["text"])
    return CorpusWriteError(failure["number"], failure["text"])
