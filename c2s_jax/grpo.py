"""Improve a trained model by rewards: ``c2s_jax.train`` with ``objective = "grpo"``. Straight-line, like ``train.py``.

Phase by phase: sample completions of the next prompts, score them, update the weights that sampled them.
"""

import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from c2s_jax import workdirs
from c2s_jax.checks import check
from c2s_jax.config import all_tasks, grpo_options, mixture, plain
from c2s_jax.data import Augmentation, Corpus, Formatter, PromptStream
from c2s_jax.evaluate import evaluate_at_end
from c2s_jax.evaluation import suites
from c2s_jax.generation import Sampler
from c2s_jax.initialize import plan_state, reference_weights, start_state
from c2s_jax.parallel import describe_devices, describe_state, first_process_first, make_mesh, to_devices
from c2s_jax.rl import make_logprobs, make_update
from c2s_jax.rl.phase import Experience, Phases, health
from c2s_jax.rl.rewards import Rewards, World
from c2s_jax.text import GeneTokenTable, load_tokenizer
from c2s_jax.training import (
    Checkpoints,
    Guards,
    MetricWriter,
    Preempted,
    Preemption,
    Profile,
    Stopped,
    Watchdog,
    guard_counts,
    make_optimizer,
    make_schedule,
    progress_bar,
)


def train(config: ConfigDict, workdir: str, *, print_sharding: bool = False) -> None:
    """Run phases until ``config.steps`` optimizer steps are made; goes on from the newest whole checkpoint.

    Raises
    ------
    Preempted
        The run was asked to end (SIGTERM), and has saved where it was.
    Stopped
        A guard stopped it, or the sampler's log-probabilities are not the trainer's.
    """
    started = time.monotonic()

    # ---------------------------------------------------------------- devices
    mesh = make_mesh(config.mesh)
    check(config, devices=mesh.shape["replica"] * mesh.shape["fsdp"])
    workdirs.claim(workdir, plain(config))
    workdirs.say(describe_devices(mesh))
    options = grpo_options(config)

    # ------------------------------------------------------ prompts and rewards
    with first_process_first("data"):
        corpus_dir, tokenizer_path = workdirs.data_paths(config, workdir)
    corpus, tokenizer = Corpus(corpus_dir), load_tokenizer(tokenizer_path)
    suites.check_at_end(config.evaluation, corpus)
    prompts = PromptStream(
        corpus,
        "train",
        mixture(config),
        Formatter(tokenizer, GeneTokenTable.build(tokenizer, corpus.genes.names)),
        seq_len=config.data.seq_len,
        augmentation=Augmentation(**config.data.augmentation),
        seed=config.seed,
        missing="skip" if all_tasks(config) else "error",
    )
    world = World(corpus, "train", config.seed)
    rewards = Rewards(config.grpo.rewards, world, errors=options.reward_errors)

    # ------------------------------------------------------------------ model
    schedule, optimizer = make_schedule(config), make_optimizer(config)
    plan = plan_state(config, tokenizer, mesh)
    if print_sharding:
        workdirs.say(describe_state(plan.abstract, mesh))
    sampler = Sampler(
        plan.graphdef,
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        batch_size=config.grpo.rollout_batch or options.completions,
        mesh=mesh,
    )
    vocabulary = dict(vocab_size=tokenizer.vocab_size)
    update = make_update(
        plan.graphdef, optimizer, mesh, plan.shardings, options, accumulate=config.accumulate, **vocabulary
    )
    logprobs = make_logprobs(plan.graphdef, mesh, options, parts=config.accumulate, **vocabulary)

    # ------------------------------------------------------------------ state
    checkpoints = Checkpoints(workdir, **config.checkpoint)
    meta: dict[str, Any] = {"config": plain(config), "tokenizer": tokenizer.fingerprint, **workdirs.versions()}
    state, position = start_state(config, plan, mesh, checkpoints, tokenizer)
    reference = reference_weights(config, plan, mesh, state) if options.beta else None
    shared = config.accumulate * mesh.shape["replica"] * mesh.shape["fsdp"]
    phases = Phases(prompts, sampler, rewards, world, tokenizer, options, multiple=shared)

    # ------------------------------------------------------------------- loop
    step, verdict, preempted = int(state.step), "go", False
    writer = MetricWriter(workdir, start_step=step, wandb=config.wandb, config=meta["config"])
    bar = progress_bar(config.steps, step)
    guards = Guards(config.guards, guard_counts(state.opt_state))
    profile = Profile(workdir, [(n - 1) // options.updates for n in config.profile.steps])  # phases that hold them
    watchdog, notice = Watchdog(workdir, **config.watchdog), Preemption()
    while step < config.steps and not preempted:
        number = step // options.updates
        clock = Clock()
        watchdog.alive(f"sampling of phase {number:,}")
        profile.before(number)
        rollout = phases.sample(state.eval_weights, number)
        clock.lap("rollout")
        # On their way on the device while the host computes rewards.
        batches: list[dict[str, Any]] = to_devices(rollout.batches, mesh)
        for batch in batches:
            more = {}
            if options.updates > 1:
                more["old"] = logprobs(state.eval_weights, batch)
            if reference is not None:
                more["reference"] = logprobs(reference(state), batch)
            batch |= more
        watchdog.alive(f"rewards of phase {number:,}")
        experience = phases.score(rollout, number)
        clock.lap("reward")
        watchdog.alive(f"updates of phase {number:,}")
        # Rewards may differ between processes (times, random numbers): those of the first count.
        scored = to_devices(multihost_utils.broadcast_one_to_all(experience.batches), mesh)
        batches = [batch | more for batch, more in zip(batches, scored)]
        history = []
        for _ in range(options.num_iterations):
            for batch in batches:
                with jax.transfer_guard(config.transfer_guard):
                    state, metrics = update(state, batch)
                history.append(metrics)
        history = jax.device_get(history)
        profile.after(number, state)
        clock.lap("update")
        step += options.updates
        bar.update(options.updates)
        verdict = guards.judge(step, guard_counts(state.opt_state))
        if verdict != "go":  # looked at first: the gap then may be no number, which does not say why
            break
        check_gap(history[0]["logprob_gap"], options.max_logprob_gap, number)

        tokens = int(experience.completions.lengths.sum())
        scalars = {f"grpo/{name}": value for name, value in health(experience).items()}
        scalars |= {f"train/{name}": float(np.mean([m[name] for m in history])) for name in history[0]}
        scalars |= {"train/logprob_gap": float(history[0]["logprob_gap"]), **guards.scalars, **clock.scalars(tokens)}
        scalars["train/learning_rate"] = float(schedule(step - 1))
        scalars["train/compilations"] = update.compilations
        writer.write(step, scalars)
        show(experience, config.grpo.show, number)
        bar.set_postfix_str(f"reward {scalars['grpo/reward']:.3f}, KL {scalars['train/kl']:.4f}")
        preempted = notice.reached(number + 1)
        if checkpoints.due(step) or step == config.steps or preempted:
            position = {"row": (number + 1) * options.prompts, "in_steps": position["in_steps"] + clock.total}
            checkpoints.save(step, state, position, meta, force=True)
    for thing in (profile, watchdog, bar, writer, checkpoints, notice):
        thing.close()
    workdirs.add_seconds(workdir, "training", time.monotonic() - started)
    if verdict != "go":
        raise Stopped(guards.reason)
    if preempted:
        raise Preempted(f"Asked to end: step {step:,} is saved; the same command goes on from there.")

    # --------------------------------------------------------------- evaluate
    evaluate_at_end(config, workdir, step, graphdef=plan.graphdef, params=state.eval_weights, mesh=mesh)


class Clock:
    """Seconds of the parts of a phase."""

    def __init__(self) -> None:
        self._last, self._laps = time.monotonic(), dict[str, float]()

    def lap(self, name: str) -> None:
        """End a part."""
        now = time.monotonic()
        self._laps[name], self._last = now - self._last, now

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self._laps.values())

    def scalars(self, tokens: int) -> dict[str, float]:
        """Seconds of each part, and completion tokens/s of sampling and of updates."""
        rates = {f"grpo/{name}_tokens_per_second": tokens / self._laps[name] for name in ("rollout", "update")}
        return rates | {f"grpo/{name}_seconds": seconds for name, seconds in self._laps.items()}


def check_gap(gap: float, limit: float, number: int) -> None:
    """Refuse to learn from a sampler that is not the model that is trained.

    Raises
    ------
    Stopped
        When their log-probabilities differ by more than ``limit`` in the mean.
    """
    if not gap <= limit:
        raise Stopped(
            f"phase {number:,}: log-probabilities of the sampler and of the training pass differ by {gap:.3g} a token "
            f"in the mean, more than grpo.max_logprob_gap={limit:g}. In bfloat16 a larger limit may be right; "
            "otherwise this is a bug, please report it"
        )


def show(experience: Experience, count: int, number: int) -> None:
    """Print the first completions of a phase with their rewards."""
    completions, scored = experience.completions, experience.scored
    for i in range(min(count, len(completions))):
        parts = ", ".join(f"{name} {values[i]:.3f}" for name, values in scored.parts.items())
        text = completions.texts[i]
        text = text if len(text) <= 120 else f"{text[:120]}… ({len(text):,} characters)"
        workdirs.say(f"phase {number:,}: reward {scored.total[i]:.3f} ({parts}): {text}")
