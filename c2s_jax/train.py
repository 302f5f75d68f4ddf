"""Train a model on cell sentences (``objective = "lm"``; ``"grpo"``, learning from rewards, is ``c2s_jax.grpo``).

    python -m c2s_jax.train --config=configs/demo.py [--workdir=DIR] [--config.optimizer.learning_rate=1e-3]

Run again with the same workdir, a killed run goes on from its last checkpoint; a finished one says so.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from flax import nnx
from jax.sharding import NamedSharding
from ml_collections import ConfigDict, config_flags

from c2s_jax import grpo, workdirs
from c2s_jax.aot.chips import chip
from c2s_jax.aot.flops import training_flops_per_token
from c2s_jax.checks import check
from c2s_jax.config import all_tasks, mixture, parse_flags, plain
from c2s_jax.data import Augmentation, Corpus, Formatter, MissingData, PackedRows, batches
from c2s_jax.evaluate import evaluate_at_end
from c2s_jax.evaluation import suites
from c2s_jax.huge_pages import restart_with_huge_pages
from c2s_jax.initialize import plan_state, start_state
from c2s_jax.parallel import (
    batch_sharding,
    describe_devices,
    describe_state,
    end_without_the_others,
    first_process_first,
    make_mesh,
    share_of_rows,
    start_processes,
)
from c2s_jax.text import GeneTokenTable, load_tokenizer
from c2s_jax.training import (
    Checkpoints,
    CountedStep,
    Guards,
    Meter,
    MetricWriter,
    Preempted,
    Preemption,
    Profile,
    Stopped,
    Watchdog,
    guard_counts,
    make_eval_step,
    make_optimizer,
    make_schedule,
    make_train_step,
    preemption,
    progress_bar,
    progress_figures,
)

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
PRINT_SHARDING = flags.DEFINE_bool("print_sharding", False, "Print where each parameter lies and what it takes.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default the config's workdir.")


def train(config: ConfigDict, workdir: str, *, print_sharding: bool = False) -> None:
    """Train until ``config.steps`` and evaluate; goes on from the newest whole checkpoint in ``workdir``.

    Raises
    ------
    Preempted
        The run was asked to end (SIGTERM), and has saved where it was.
    Stopped
        A guard ended it (``config.guards``).
    """
    started = time.monotonic()

    # ---------------------------------------------------------------- devices
    mesh = make_mesh(config.mesh)
    check(config, devices=mesh.shape["replica"] * mesh.shape["fsdp"])
    workdirs.claim(workdir, plain(config))
    rows_on_mesh = batch_sharding(mesh)
    workdirs.say(describe_devices(mesh))

    # ------------------------------------------------------------------- data
    with first_process_first("data"):
        corpus_dir, tokenizer_path = workdirs.data_paths(config, workdir)
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    suites.check_at_end(config.evaluation, corpus)
    formatter = Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names))
    tasks = mixture(config)
    task_names = [t.task for t in tasks]
    packing: dict[str, Any] = dict(seq_len=config.data.seq_len, rows_per_block=config.data.rows_per_block)
    rows = PackedRows(
        corpus,
        "train",
        tasks,
        formatter,
        augmentation=Augmentation(**config.data.augmentation),
        seed=config.seed,
        missing="skip" if all_tasks(config) else "error",
        **packing,
    )
    workdirs.say("\n".join(["Training rows: " + rows.describe()[0], *rows.describe()[1:]]))
    validation_rows = None
    try:
        validation_rows = PackedRows(corpus, "validation", tasks, formatter, seed=0, missing="skip", **packing)
    except MissingData as reason:
        if config.checkpoint.keep_best:
            raise ValueError(f"checkpoint.keep_best={config.checkpoint.keep_best} needs validation: {reason}") from None
        workdirs.say(f"No validation: {reason}")

    # ------------------------------------------------------------------ model
    schedule = make_schedule(config)
    plan = plan_state(config, tokenizer, mesh)
    if print_sharding:
        workdirs.say(describe_state(plan.abstract, mesh))
    jitted = make_train_step(
        plan.graphdef,
        make_optimizer(config),
        mesh,
        plan.shardings,
        n_tasks=len(tasks),
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        dropout_seed=config.seed if config.model.dropout or config.lora.dropout else None,
    )
    train_step = CountedStep(jitted, "the training step", transfer_guard=config.transfer_guard)
    eval_step = CountedStep(make_eval_step(plan.graphdef, mesh, n_tasks=len(tasks)), "the validation step")

    # ------------------------------------------------------------------ state
    checkpoints = Checkpoints(workdir, **config.checkpoint)
    meta: dict[str, Any] = {"config": plain(config), "tokenizer": tokenizer.fingerprint, **workdirs.versions()}
    state, position = start_state(config, plan, mesh, checkpoints, tokenizer)

    # ------------------------------------------------------------------- loop
    step = first_step = int(state.step)
    next_row, verdict, preempted = position["row"], "go", False
    reading: dict[str, int] = dict(batch_size=config.batch_size, **share_of_rows(mesh))
    stream = batches(rows, start_row=next_row, threads=config.data.threads, **reading)
    open_writer = partial(MetricWriter, workdir, wandb=config.wandb, config=meta["config"])
    writer, bar = open_writer(step), progress_bar(config.steps, step)
    meter = Meter(
        tokens_per_step=config.batch_size * config.data.seq_len,
        flops_per_token=training_flops_per_token(plan.config, config.data.seq_len, frozen=plan.adapter is not None),
        devices=mesh.size,
        peak_flops=peaks.flops if (peaks := chip(mesh.devices.flat[0])) else None,
        began=workdirs.first_start(workdir),
        in_steps=position["in_steps"],
    )
    guards = Guards(config.guards, guard_counts(state.opt_state))
    profile = Profile(workdir, config.profile.steps)
    watchdog, notice = Watchdog(workdir, **config.watchdog), Preemption()
    while step < config.steps and verdict != "stop" and not preempted:
        step, next_row = step + 1, next_row + config.batch_size
        watchdog.alive(f"step {step:,}")
        profile.before(step)
        state, metrics = train_step(state, jax.make_array_from_process_local_data(rows_on_mesh, next(stream)))
        profile.after(step, metrics)
        meter.step(metrics["tokens"])
        bar.update()
        if step == first_step + 1:  # which compiles
            jax.block_until_ready(metrics)
            meter.restart()
        preempted = notice.reached(next_row // config.batch_size)
        last = step == config.steps
        logs, saves = step % config.log_every == 0 or last, checkpoints.due(step) or last or preempted

        if logs or saves:
            verdict = guards.judge(step, metrics)  # waits for the device
        if verdict == "rewind":
            del state
            state, position = start_state(config, plan, mesh, checkpoints, tokenizer)
            step, verdict = int(state.step), "go"
            workdirs.say(f"{guards.reason} Rewound to step {step:,}; goes on with the rows that come next.")
            guards.restart(guard_counts(state.opt_state))
            meter.restart(position["in_steps"])
            writer.close()
            writer, bar.n = open_writer(step), step
            continue
        if logs:
            scalars = log_train(metrics, task_names) | meter.read() | guards.scalars
            scalars["train/learning_rate"] = float(schedule(step - 1))
            scalars["train/compilations"] = train_step.compilations
            bar.set_postfix_str(progress_figures(scalars))
            writer.write(step, scalars)
        validated = None
        if validation_rows is not None and (step % config.validate_every == 0 or last):
            watchdog.alive(f"validation after step {step:,}")
            with meter.outside():
                params = state.eval_weights
                validated = validate(eval_step, params, validation_rows, config, rows_on_mesh, task_names)
            writer.write(step, validated)
        if saves and verdict != "stop":
            watchdog.alive(f"saving step {step:,}")
            position = {"row": next_row, "in_steps": meter.in_steps}
            with meter.outside():
                checkpoints.save(step, state, position, meta, metrics=validated, force=True)
    for thing in (profile, watchdog, bar, writer, checkpoints, notice):
        thing.close()
    workdirs.add_seconds(workdir, "training", time.monotonic() - started)
    if verdict == "stop":
        raise Stopped(guards.reason)
    if preempted:
        raise Preempted(f"Asked to end: step {step:,} is saved; the same command goes on from there.")

    # --------------------------------------------------------------- evaluate
    evaluate_at_end(config, workdir, step, graphdef=plan.graphdef, params=state.eval_weights, mesh=mesh)


def log_train(metrics: dict[str, jax.Array], task_names: list[str]) -> dict[str, float]:
    """Scalars of one step, by name."""
    metrics = jax.device_get(metrics)
    scalars = {"train/loss": float(metrics["loss"]), "train/gradient_norm": float(metrics["gradient_norm"])}
    by_task = zip(task_names, metrics["loss_by_task"])
    return scalars | {f"train/loss/{n}": float(v) for n, v in by_task if np.isfinite(v)}


def validate(
    eval_step: Callable,
    params: nnx.State,
    rows: PackedRows,
    config: ConfigDict,
    sharding: NamedSharding,
    task_names: list[str],
) -> dict[str, float]:
    """Mean loss over the first ``config.validation_rows`` rows of the validation split."""
    assert isinstance(sharding.mesh, jax.sharding.Mesh)
    share = share_of_rows(sharding.mesh)
    stream = batches(rows, start_row=0, batch_size=config.batch_size, threads=1, **share)
    total = np.zeros((2, len(task_names)))
    for _ in range(max(1, config.validation_rows // config.batch_size)):
        batch = jax.make_array_from_process_local_data(sharding, next(stream))
        total += jax.device_get(eval_step(params, batch))
    loss, weight = total
    scalars = {"validation/loss": float(loss.sum() / weight.sum())}
    by_task = zip(task_names, loss, weight)
    return scalars | {f"validation/loss/{name}": float(x / w) for name, x, w in by_task if w}


def main(argv: list[str]) -> None:
    """Entry point; bad input is one line that says what to do (``--v=1``: the whole trace)."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    config = CONFIG.value
    try:
        start_processes(config.distributed)
        run = grpo.train if config.objective == "grpo" else train
        workdir = workdirs.resolve(WORKDIR.value, config)
        with workdirs.alone(workdir):
            run(config, workdir, print_sharding=PRINT_SHARDING.value)
    except Preempted as end:
        workdirs.say(str(end))
        sys.exit(preemption.EXIT_CODE)
    except jax.errors.JaxRuntimeError as error:
        end_without_the_others(error)
    except (ValueError, OSError, Stopped) as error:
        if logging.vlog_is_on(1):
            raise
        raise SystemExit(f"FATAL {error}") from None


if __name__ == "__main__":
    restart_with_huge_pages()
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
