"""Every key of a run's configuration, with its default. Files in ``configs/`` start from ``base()``.

Values are checked at start-up (``checks.py``) or where they are used; unknown keys and wrong types stop a run before
that (``parse_flags``).
"""

import dataclasses
import difflib
import json
import sys
from collections.abc import Collection, Iterator
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from c2s_jax.data import Augmentation, MixtureTask
from c2s_jax.models import ARCHITECTURES, ModelConfig
from c2s_jax.models.lora import LoRAConfig
from c2s_jax.rl import GRPOOptions
from c2s_jax.tasks import TASKS

SCALES = ("paper", "small")

# Endings of keys that must not be left at 0.
SIZES = ("_dim", "_size", "_layers", "_heads", "_scalar")


def base(architecture: str = "gemma2") -> ConfigDict:
    """The default configuration: pretraining of a model of ``models.ARCHITECTURES`` whose sizes are to be filled in."""
    config = ConfigDict()
    config.name = "run"
    config.objective = "lm"  # next-token loss (pretraining and SFT), or "grpo"
    config.workdir = ""  # used when --workdir is not given
    config.seed = 0
    config.steps = 100_000
    config.batch_size = 64  # rows a step, over all devices
    config.accumulate = 1  # micro-batches a step
    config.products = "float"  # or "int8": linear maps multiply 8-bit integers in training
    config.ema_decay = 0.0  # running mean of the parameters, used for evaluation; 0 is off

    # Devices by what they share: gradients between slices (replica), rows and parameters (fsdp), tokens of long rows
    # (sequence), heads and hidden units (tensor); -1 takes those that are left.
    config.mesh = ConfigDict({"replica": 1, "fsdp": -1, "sequence": 1, "tensor": 1})

    # Several processes, where JAX cannot find out by itself (docs/training.md); the same on all but process_id.
    config.distributed = ConfigDict()
    config.distributed.coordinator = ""  # host:port of process 0
    config.distributed.num_processes = 0
    config.distributed.process_id = -1
    config.distributed.start_seconds = 300  # to wait for the others to come up
    config.distributed.heartbeat_seconds = 100  # a process silent for so long counts as dead, and all end

    config.init_from = (
        ""  # weights to start from: Hugging Face folder or hub id, export of c2s_jax.convert, or a run's workdir
    )
    config.model = ConfigDict({"architecture": architecture})
    for field in dataclasses.fields(ARCHITECTURES[architecture][1]):
        to_be_given = 0.0 if field.type is float else 0  # a vocab_size of 0 is the tokenizer's
        config.model[field.name] = to_be_given if field.default is dataclasses.MISSING else field.default
    config.model.attention = "auto"

    config.lora = ConfigDict(dataclasses.asdict(LoRAConfig()))
    config.lora.rank = 0  # 0 trains all parameters
    config.lora.quantize = ""  # frozen kernels in "int8" or "nf4" (QLoRA)

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # or "adafactor": next to no state, no momentum
    config.optimizer.moment_dtype = "float32"  # of AdamW's state; "bfloat16" saves 4 bytes a parameter
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 1_000
    config.optimizer.final_fraction = 0.1
    config.optimizer.weight_decay = 0.01
    config.optimizer.b1, config.optimizer.b2, config.optimizer.eps = 0.9, 0.95, 1e-8
    config.optimizer.clip_norm = 1.0  # of all gradients together; 0 clips nothing

    config.data = ConfigDict()
    config.data.corpus = ""  # folder of a corpus (data_pipeline.build)
    config.data.tokenizer = ""  # tokenizer.model, tokenizer.json or a folder with one; by default that of init_from
    config.data.bundled = ""  # "pbmc68k_reduced": build corpus and tokenizer in the workdir from scanpy's cells
    config.data.seq_len = 8192
    config.data.rows_per_block = 1024
    config.data.threads = 2
    config.data.tasks = ("all",)  # "all" the corpus has data for, or names; each is set up in data.mixture.<name>
    config.data.mixture = ConfigDict({task: mixture_task(task) for task in TASKS})
    config.data.augmentation = ConfigDict(dataclasses.asdict(Augmentation()))

    config.grpo = ConfigDict(dataclasses.asdict(GRPOOptions()))  # batch_size is not used: see prompts, minibatches
    config.grpo.rewards = ConfigDict()  # {name: {weight, settings of the reward}}, see docs/rl.md
    config.grpo.rollout_batch = 0  # completions sampled at once; 0: all of a phase
    config.grpo.show = 1  # completions printed and logged a phase

    config.log_every = 10
    config.validate_every = 1_000
    config.validation_rows = 64

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1_000  # steps
    config.checkpoint.keep = 3  # the newest so many
    config.checkpoint.keep_every = 0  # and forever those of steps that are multiples of it; 0: none
    config.checkpoint.keep_best = 0  # and so many of the lowest metric
    config.checkpoint.best = "validation/loss"  # the metric; only checkpoints of a step with validation have one

    config.guards = ConfigDict()  # no update that a guard refuses touches the parameters; then:
    config.guards.nonfinite = "stop"  # loss or gradient not finite: "skip", "rewind" to the last checkpoint, "stop"
    config.guards.spike = "off"  # loss above spike_factor × median of the last window accepted: the same, or "off"
    config.guards.spike_factor = 2.0
    config.guards.window = 100
    config.guards.max_rewinds = 3  # of one start
    config.transfer_guard = "disallow"  # of steps: "disallow", "log" or "allow" implicit transfers (jax.transfer_guard)
    config.watchdog = ConfigDict()
    config.watchdog.seconds = 1_800.0  # a step that takes longer prints the stacks of all threads; 0 is off
    config.watchdog.abort = False  # and ends the process

    config.profile = ConfigDict({"steps": ()})  # (first, last) to trace into workdir/profile
    config.wandb = ConfigDict({"project": "", "entity": "", "name": ""})  # with a project, metrics also go to W&B

    config.evaluation = ConfigDict()
    config.evaluation.at_end = False
    config.evaluation.split = "test"
    config.evaluation.max_genes = 1_000  # genes a prompt or a generated sentence
    config.evaluation.prompts_per_cell = 1  # templates asked per cell; the most probable answer wins
    config.evaluation.batch_size = 64
    config.evaluation.max_cells = 2_000  # of more, so many are drawn, for every run on the corpus the same
    config.evaluation.temperature = 1.0
    config.evaluation.top_p = 1.0
    config.evaluation.grammar = False  # generated cells name genes of the corpus only, and none twice
    config.evaluation.knn = 5
    config.evaluation.pca_components = 32
    config.evaluation.text_encoder = ""  # BERT that compares texts (captions, abstracts, answers): folder or hub id
    config.evaluation.text_layer = 0  # whose hidden states; 0 for the last
    config.evaluation.max_prompts = 200  # of the suites of texts, of space and of l1000, each task
    config.evaluation.l1000_genes = ""  # compared by "l1000": all, FILE, FILE.gmt:SET[+SET...] or symbols
    config.evaluation.loss_samples = 500  # of each task, in scaling
    config.evaluation.loss_batch_size = 8
    config.evaluation.more_suites = ()  # beside annotation and generation, see docs/metrics.md: "embedding", "qa", …
    config.evaluation.more_spaces = ("model",)  # beside PCA, of "perturbation": FILE.gmt:SET[+SET...], a scGPT's folder
    config.evaluation.export = ()  # h5ad files for others to score: "cell-eval", "pertpy", "scib-metrics"
    config.notes = ()  # sentences for the report, e.g. what was tuned and on what

    config.scale = "paper"  # or "small": with the file's own smaller values (docs/recipes)
    config.small = ConfigDict()  # overrides({key: value}) of --config.scale=small
    return config


def overrides(values: dict[str, Any]) -> ConfigDict:
    """``{"model.embed_dim": 64, ...}`` as the nested ``config.small``."""
    out = ConfigDict()
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = out
        for name in parents:
            if name not in inner:
                inner[name] = ConfigDict()
            inner = inner[name]
        inner[last] = value
    return out


def apply_scale(config: ConfigDict, given: Collection[str] = ()) -> None:
    """Set ``config`` to its ``scale``, in place: "small" takes over ``config.small``, but for keys in ``given``.

    ``given`` are the dotted keys that the command line sets. Applied once, when a run starts.

    Raises
    ------
    ValueError
        The scale is unknown, or the file has none of that name, or ``small`` has an unknown key or a wrong type.
    """
    if config.scale not in SCALES:
        raise ValueError(f"scale={config.scale!r} is not one of {', '.join(SCALES)}")
    if config.scale == "paper":
        return
    if not config.small:
        raise ValueError('scale="small": this file has no smaller values; set them in config.small')
    known = [key for key in _keys(config) if not key.startswith("small.")]
    kept = {key.split("[", 1)[0] for key in given}
    for key, value in _leaves(config.small):
        if key not in known:
            raise ValueError(f"small.{key}: no such key{_nearest(key, known)}")
        if key in kept:
            continue
        try:
            config.update_from_flattened_dict({key: value})
        except TypeError as error:
            raise ValueError(f"small.{key}={value!r}: {error}") from None


def mixture_task(task: str, **settings: Any) -> ConfigDict:
    """One task's mixture settings (``MixtureTask``), for ``config.data.mixture[task]``."""
    values = dataclasses.asdict(MixtureTask(task, **settings))
    del values["task"]
    values["max_genes"] = values["max_genes"] or 0
    return ConfigDict(values)


def mixture(config: ConfigDict) -> list[MixtureTask]:
    """The mixture that ``config.data`` describes; ``max_genes`` 0 means whole sentences."""
    if not config.data.tasks:
        raise ValueError("data.tasks is empty: name the tasks to train on")
    out = []
    for name in TASKS if all_tasks(config) else config.data.tasks:
        if name not in config.data.mixture:
            raise ValueError(f"data.tasks names {name!r}, but data.mixture has no settings for it")
        settings = dict(config.data.mixture[name])
        out.append(MixtureTask(name, **{**settings, "max_genes": settings["max_genes"] or None}))
    return out


def all_tasks(config: ConfigDict) -> bool:
    """Whether the mixture is whatever the corpus has data for."""
    return tuple(config.data.tasks) == ("all",)


def grpo_options(config: ConfigDict) -> GRPOOptions:
    """The options of ``config.grpo``."""
    names = [field.name for field in dataclasses.fields(GRPOOptions)]
    return GRPOOptions(**{name: config.grpo[name] for name in names})


def model_config(config: ConfigDict, **changes: Any) -> ModelConfig:
    """The model that ``config.model`` describes."""
    settings = {**config.model, **changes}
    architecture = settings.pop("architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"model.architecture={architecture!r} is not one of {', '.join(ARCHITECTURES)}")
    if missing := [key for key, value in settings.items() if value == 0 and key.endswith(SIZES)]:
        raise ValueError(f"model.{missing[0]} is not given")
    return ARCHITECTURES[architecture][1](**settings)


def lora_config(config: ConfigDict) -> LoRAConfig | None:
    """The adapter that ``config.lora`` describes; None when all parameters are trained."""
    settings = dict(config.lora)
    del settings["quantize"]
    return LoRAConfig(**settings) if config.lora.rank else None


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON types."""
    return json.loads(config.to_json_best_effort())


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ, as ``key: old -> new``."""
    out = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            out.append(f"{prefix}{key}: {a!r} -> {b!r}")
    return out


def parse_flags(argv: list[str]) -> list[str]:
    """``flags_parser`` for ``absl.app.run`` that answers an unknown ``--config.x`` with one clear line, not a trace."""
    try:
        rest = app.parse_flags_with_usage(argv)
        flag = flags.FLAGS["config"]
        config = flag.value  # a file that cannot be read is only told on first use
        if config is not None:
            apply_scale(config, config_flags.get_override_values(flag))
        if not flags.FLAGS["verbosity"].present:  # checkpoints log every file at INFO
            logging.set_verbosity(logging.WARNING)
        return rest
    except AttributeError:
        unknown = _first_unknown(argv)
        if unknown is None:
            raise
        sys.exit(f"FATAL --config.{unknown}")
    except OSError as error:
        sys.exit(f"FATAL --config: {error}")
    except ValueError as error:
        sys.exit(f"FATAL --config.{error}")


def _first_unknown(argv: list[str]) -> str | None:
    """The first ``--config.x`` key that the config file does not have, with its nearest neighbours."""
    values = flags.FlagValues()
    alone = argv[:1]  # and the file; config_flags looks for overrides in all of sys.argv unless told otherwise
    for argument, following in zip(argv[1:], [*argv[2:], ""]):
        if argument.lstrip("-").split("=", 1)[0] == "config":
            alone += [argument] if "=" in argument else [argument, following]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=alone)
    values(alone)
    known = _keys(holder.value)
    for argument in argv[1:]:
        key = argument.lstrip("-").removeprefix("config.").split("=", 1)[0].split("[", 1)[0]
        if not argument.lstrip("-").startswith("config.") or key in known:
            continue
        return f"{key}: no such key{_nearest(key, known)}"
    return None


def _nearest(key: str, known: Collection[str]) -> str:
    near = [k for k in known if k.split(".")[-1] == key.split(".")[-1]][:2]
    near += [k for k in difflib.get_close_matches(key, known, n=3, cutoff=0.5) if k not in near]
    return f"; nearest: {', '.join(near)}" if near else ""


def _keys(config: ConfigDict, prefix: str = "") -> list[str]:
    out = []
    for key, value in config.items():
        out.append(prefix + key)
        if isinstance(value, ConfigDict):
            out += _keys(value, f"{prefix}{key}.")
    return out


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
