"""Evaluate a trained run on held-out cells: ``metrics.json`` and ``report.html`` in its workdir.

python -m c2s_jax.evaluate --config=configs/demo.py --workdir=runs/demo [--config.evaluation.split=validation]

``--beside=DIR,DIR`` shows runs that were evaluated before in tables with this one: ``beside.html``.
"""

import functools
import json
import os
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import config_flags

import c2s_jax
from c2s_jax import workdirs
from c2s_jax.config import mixture, parse_flags, plain
from c2s_jax.data import Corpus, Formatter
from c2s_jax.evaluation import Context, annotation, beside, exports, generation, pages, suite_pages, suites
from c2s_jax.evaluation.store import Store, weights_fingerprint
from c2s_jax.generation import Sampler
from c2s_jax.huge_pages import restart_with_huge_pages
from c2s_jax.initialize import plan_state, state_to_restore
from c2s_jax.parallel import end_without_the_others, first_process_first, make_mesh, start_processes
from c2s_jax.text import GeneTokenTable, load_tokenizer
from c2s_jax.training import Checkpoints


def evaluate(
    config: Any, workdir: str, step: int, *, graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh
) -> dict[str, Any]:
    """Measure the model of a step on ``config.evaluation.split``; writes metrics and report, returns the metrics.

    Annotation and generation by type are measured where the run's mixture has the task. What the model answered in
    each suite is kept in ``workdir/evaluation`` as soon as the suite is whole, and taken from there when the same
    weights are evaluated with the same settings again. Of several processes all measure, and the first one writes.
    """
    started = time.monotonic()
    e = config.evaluation
    suites.check(e)
    exports.check(e.export, e.more_suites)
    context = open_context(config, workdir, graphdef=graphdef, params=params, mesh=mesh)
    kept = _store(config, workdir, context)
    metrics: dict[str, Any] = {}
    found = made = cells = None
    if annotation.TASK in context.tasks:
        found, shuffled = (_annotations(kept, context, e, seed) for seed in (None, config.seed))
        metrics["annotation"] = annotation.annotation_metrics(context, e.split, found, shuffled, seed=config.seed)
    if generation.TASK in context.tasks:
        texts = kept("generation", lambda: _generate(context, e, config.seed).to_json())
        made = generation.Generated.from_json(texts, context.corpus.genes)
        cells = generation.populations(context, e.split, made, components=e.pca_components, seed=config.seed)
        metrics["generation"] = generation.generation_metrics(context, e.split, made, cells, k=e.knn)
    metrics["reconstruction"] = reconstruction(context.corpus)
    metrics |= {"step": step, "split": e.split, "cells": len(context.corpus.cells(e.split))}
    for name in e.more_suites:
        measured = kept(name, functools.partial(suites.SUITES[name], context, e, config.seed))
        if measured is None:
            workdirs.say(f"The corpus has no cells for the suite {name!r} in its split {e.split!r}")
        else:
            metrics[name] = measured
    metrics["flags"] = suite_pages.flags(metrics)
    metrics["seconds"] = workdirs.add_seconds(workdir, "evaluation", time.monotonic() - started)
    with first_process_first("report"):  # the others wait for it, however long its figures take
        if not jax.process_index():
            pages.write(plain(config), workdir, context, metrics, found, made, cells)
            workdirs.write_json(os.path.join(workdir, "metrics.json"), metrics)
            summarize(metrics, workdir)
    return metrics


def evaluate_at_end(config: Any, workdir: str, step: int, **model: Any) -> None:
    """What a run does when its training ends: it is evaluated, once and if asked for, or says that it is finished."""
    known = multihost_utils.broadcast_one_to_all(_evaluated_step(workdir) == step)  # before it is written anew
    if config.evaluation.at_end and not known:
        evaluate(config, workdir, step, **model)
    else:
        workdirs.say(f"Finished: {workdir} is trained to step {step:,}; give another --workdir for a new run.")


def _evaluated_step(workdir: str) -> int | None:
    """Of the figures in a workdir."""
    path = os.path.join(workdir, "metrics.json")
    if not os.path.exists(path):
        return None
    with open(path) as f:
        return json.load(f).get("step")


def open_context(config: Any, workdir: str, *, graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh) -> Context:
    """A model with the corpus, tokenizer and tasks of its run, for suites and ``evaluation.scaling.task_losses``."""
    e = config.evaluation
    corpus_dir, tokenizer_path = workdirs.data_paths(config, workdir)
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    sampler = Sampler(
        graphdef,
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        batch_size=e.batch_size,
        mesh=mesh,
    )
    tasks = {task.task: task for task in mixture(config)}
    folder = os.path.join(workdir, "exports")
    model = graphdef, params, mesh
    return Context(*model, corpus, formatter, sampler, e.max_genes, config.data.seq_len, tasks, folder, e.grammar)


def _store(config: Any, workdir: str, context: Context) -> Store:
    settings = {k: v for k, v in plain(config)["evaluation"].items() if k not in ("at_end", "more_suites")}
    cells = [len(context.corpus.cells(split)) for split in ("train", config.evaluation.split)]
    key = {"settings": settings, "seed": config.seed, "cells": cells, "weights": weights_fingerprint(context.params)}
    key |= {"version": c2s_jax.__version__, "format": 3}  # of what is kept
    return Store(os.path.join(workdir, "evaluation"), key)


def _annotations(kept: Store, context: Context, settings: Any, shuffle_genes: int | None) -> annotation.Annotations:
    e = settings
    name = "annotation" if shuffle_genes is None else "annotation_shuffled_genes"
    asked: dict[str, Any] = dict(prompts_per_cell=e.prompts_per_cell, max_cells=e.max_cells)
    answers = kept(name, lambda: annotation.annotate(context, e.split, shuffle_genes=shuffle_genes, **asked).to_json())
    return annotation.Annotations.from_json(answers)


def _generate(context: Context, settings: Any, seed: int) -> generation.Generated:
    e = settings
    return generation.generate_cells(context, e.split, sampling=suites.sampling(e), seed=seed, max_cells=e.max_cells)


def reconstruction(corpus: Corpus) -> dict[str, Any]:
    """How well rank tells expression: each data set's line, and R² as their mean weighted by entries."""
    fits = corpus.rank_expressions
    by_dataset = {d["name"]: fit.to_dict() for d, fit in zip(corpus.datasets, fits)}
    r2 = float(np.average([f.r2 for f in fits], weights=[f.n for f in fits]))
    r2_all = float(np.average([f.r2_all for f in fits], weights=[f.n_all for f in fits]))
    return {"r2": r2, "r2_all": r2_all, "by_dataset": by_dataset}


def summarize(metrics: dict[str, Any], workdir: str) -> None:
    """Print the headline numbers."""
    print(f"Held-out cells ({metrics['split']}): {metrics['cells']}")
    if a := metrics.get("annotation"):
        base = a["baselines"]
        print(
            f"  annotation      accuracy {a['accuracy']:.3f}  macro-F1 {a['macro_f1']:.3f}   "
            f"(logistic regression {base['logistic_regression']['accuracy']:.3f} / "
            f"{base['logistic_regression']['macro_f1']:.3f}, majority class {base['majority']['accuracy']:.3f})"
        )
    if g := metrics.get("generation"):
        scores = {name: g["references"][k]["scfid"] for k, name in pages.REFERENCES.items() if k in g["references"]}
        beside = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
        print(
            f"  generation      valid {g['valid']:.3f}  unique {g['unique']:.3f}  overlap {g['overlap']:.3f}  "
            f"k-NN accuracy {g['knn_accuracy']:.3f}  scFID {g['scfid']:.2f}   ({beside})"
        )
    print(f"  reconstruction  R² {metrics['reconstruction']['r2']:.3f}")
    for flag in metrics["flags"]:
        print(f"  FLAG  {flag}")
    print(f"Report: {os.path.join(workdir, 'report.html')}")


def main(argv: list[str]) -> None:
    config, workdir = CONFIG.value, workdirs.resolve(WORKDIR.value, CONFIG.value)
    if not os.path.isdir(os.path.join(workdir, "checkpoints")):
        raise SystemExit(f"FATAL {workdir} holds no checkpoint; train first: python -m c2s_jax.train --config=…")
    try:
        start_processes(config.distributed)
        workdirs.claim(workdir, plain(config))
        step, model = restore(config, workdir)
        evaluate(config, workdir, step, **model)
        if BESIDE.value and not jax.process_index():
            page = beside.write(os.path.join(workdir, "beside.html"), beside.read_runs([workdir, *BESIDE.value]))
            print(f"Side by side: {page}")
    except jax.errors.JaxRuntimeError as error:
        end_without_the_others(error)
    except (ValueError, OSError) as error:
        raise SystemExit(f"FATAL {error}") from None


def restore(config: Any, workdir: str) -> tuple[int, dict[str, Any]]:
    """The newest checkpoint's step and model, as arguments of ``evaluate``."""
    with first_process_first("data"):
        tokenizer = load_tokenizer(workdirs.data_paths(config, workdir)[1])
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(workdir, every=1, writer=False)
    if (step := checkpoints.latest) is None:
        raise ValueError(f"{workdir} holds no whole checkpoint yet; go on training first")
    plan = plan_state(config, tokenizer, mesh)
    weights, meta = checkpoints.restore_weights(state_to_restore(config, plan, mesh))
    workdirs.check_tokenizer(meta, tokenizer)
    workdirs.say(f"Evaluating step {step:,} of {workdir}")
    return step, {"graphdef": plan.graphdef, "params": weights, "mesh": mesh}


if __name__ == "__main__":
    restart_with_huge_pages()
    CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default the config's workdir.")
    BESIDE = flags.DEFINE_list("beside", [], "Runs evaluated before, to be shown beside this one in beside.html.")
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
