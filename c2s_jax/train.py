"""Train a model on cell sentences.

    python -m c2s_jax.train --config=configs/demo.py [--workdir=DIR] [--config.optimizer.learning_rate=1e-3]

Run again with the same workdir, a killed run goes on from its last checkpoint; a finished one says so.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from flax import nnx
from jax.sharding import NamedSharding
from ml_collections import ConfigDict, config_flags

from c2s_jax import workdirs
from c2s_jax.config import all_tasks, check, mixture, parse_flags, plain
from c2s_jax.data import Augmentation, Corpus, Formatter, PackedRows, batches
from c2s_jax.evaluate import evaluate
from c2s_jax.initialize import new_state, plan_state, state_to_restore
from c2s_jax.parallel import batch_sharding, make_mesh
from c2s_jax.text import GeneTokenTable, load_tokenizer
from c2s_jax.training import (
    Checkpoints,
    MetricWriter,
    make_eval_step,
    make_optimizer,
    make_schedule,
    make_train_step,
    progress_bar,
)

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default the config's workdir.")


def train(config: ConfigDict, workdir: str) -> None:
    """Train until ``config.steps`` and evaluate; goes on from the newest checkpoint in ``workdir``."""
    started = time.monotonic()

    # ---------------------------------------------------------------- devices
    mesh = make_mesh(config.mesh)
    check(config, devices=mesh.shape["replica"] * mesh.shape["fsdp"])
    workdirs.claim(workdir, plain(config))
    rows_on_mesh = batch_sharding(mesh)
    workdirs.say(f"Devices: {mesh.size} × {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}")

    # ------------------------------------------------------------------- data
    corpus_dir, tokenizer_path = workdirs.data_paths(config, workdir)
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
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
    validation_rows = PackedRows(corpus, "validation", tasks, formatter, seed=0, missing="skip", **packing)
    workdirs.say("\n".join(["Training rows: " + rows.describe()[0], *rows.describe()[1:]]))

    # ------------------------------------------------------------------ model
    schedule = make_schedule(config)
    plan = plan_state(config, tokenizer, mesh)
    train_step = make_train_step(
        plan.graphdef,
        make_optimizer(config),
        mesh,
        plan.shardings,
        n_tasks=len(tasks),
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        dropout_seed=config.seed if config.model.dropout or config.lora.dropout else None,
    )
    eval_step = make_eval_step(plan.graphdef, mesh, n_tasks=len(tasks))

    # ------------------------------------------------------------------ state
    checkpoints = Checkpoints(workdir, every=config.checkpoint.every, keep=config.checkpoint.keep)
    meta = {"config": plain(config), "tokenizer": tokenizer.fingerprint, **workdirs.versions()}
    if checkpoints.latest is None:
        state, next_row = new_state(config, plan, mesh), 0
    else:
        state, position, saved = checkpoints.restore(state_to_restore(config, plan, mesh))
        workdirs.check_tokenizer(saved, tokenizer)
        next_row = position["row"]
        workdirs.say(f"Restored step {checkpoints.latest:,} from {workdir}")

    # ------------------------------------------------------------------- loop
    step = first_step = int(state.step)
    writer, bar = MetricWriter(workdir, start_step=step), progress_bar(config.steps, step)
    stream = batches(rows, start_row=next_row, batch_size=config.batch_size, threads=config.data.threads)
    tokens, since = 0, time.monotonic()
    while step < config.steps:
        batch = next(stream)
        tokens += int(np.count_nonzero(batch["segment_ids"]))
        state, metrics = train_step(state, jax.make_array_from_process_local_data(rows_on_mesh, batch))
        step, next_row = step + 1, next_row + config.batch_size
        bar.update()

        if step % config.log_every == 0 or step == config.steps:
            scalars = log_train(metrics, task_names)  # waits for the device
            seconds, since = time.monotonic() - since, time.monotonic()
            scalars |= {
                "train/tokens_per_second": tokens / seconds,
                "train/learning_rate": float(schedule(step - 1)),
            }
            if step > first_step + config.log_every:  # the first interval holds the compilation
                bar.set_postfix_str(f"loss {scalars['train/loss']:.3f}, {tokens / seconds:,.0f} tokens/s")
            tokens = 0
            writer.write(step, scalars)
        if step % config.validate_every == 0 or step == config.steps:
            began = time.monotonic()
            params = state.eval_weights
            writer.write(step, validate(eval_step, params, validation_rows, config, rows_on_mesh, task_names))
            since += time.monotonic() - began
        if step % config.checkpoint.every == 0 or step == config.steps:
            checkpoints.save(step, state, {"row": next_row}, meta, force=step == config.steps)
    bar.close()
    writer.close()
    checkpoints.close()
    workdirs.add_seconds(workdir, "training", time.monotonic() - started)

    # --------------------------------------------------------------- evaluate
    if config.evaluation.at_end and not os.path.exists(os.path.join(workdir, "metrics.json")):
        evaluate(config, workdir, graphdef=plan.graphdef, params=state.eval_weights, mesh=mesh)
    else:
        workdirs.say(f"Finished: {workdir} is trained to step {step:,}; give another --workdir for a new run.")


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
    stream = batches(rows, start_row=0, batch_size=config.batch_size, threads=1)
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
        train(config, workdirs.resolve(WORKDIR.value, config))
    except (ValueError, OSError) as error:
        if logging.vlog_is_on(1):
            raise
        raise SystemExit(f"FATAL {error}") from None


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
