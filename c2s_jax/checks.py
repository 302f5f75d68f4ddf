"""Values of a configuration that are wrong, or only fail together, refused before anything is built."""

from ml_collections import ConfigDict

from c2s_jax.config import grpo_options, mixture, model_config
from c2s_jax.models.linear import check_products
from c2s_jax.training.guards import check_guards
from c2s_jax.training.profile import check_profile


def check(config: ConfigDict, devices: int) -> None:
    """Refuse values that are wrong, or only fail together, before anything is built."""
    if config.objective not in ("lm", "grpo"):
        raise ValueError(f'objective={config.objective!r} must be "lm" or "grpo"')
    _check_numbers(config)
    _check_model(config)
    check_products(config.products)
    _check_survival(config)
    sequence = config.mesh.get("sequence", 1)
    if sequence != 1 and (sequence < 1 or config.data.seq_len % (128 * sequence)):
        raise ValueError(
            f"mesh.sequence={sequence} must be 1, or such that each device gets a multiple of 128 of the data.seq_len="
            f"{config.data.seq_len} tokens of a row"
        )
    if sequence != 1 and config.objective != "lm":
        raise ValueError(f'mesh.sequence={sequence} is for objective="lm"; answers are not so long')
    rows = config.accumulate * devices
    if config.objective == "grpo":
        _check_grpo(config, rows)
    elif config.batch_size % rows:
        raise ValueError(
            f"batch_size={config.batch_size} must be a multiple of accumulate × devices that share the batch = "
            f"{config.accumulate} × {devices}"
        )


def _check_numbers(config: ConfigDict) -> None:
    for key in ("steps", "batch_size", "accumulate", "log_every", "validate_every", "validation_rows"):
        if config[key] < 1:
            raise ValueError(f"{key}={config[key]} must be at least 1")
    if config.seed < 0:
        raise ValueError(f"seed={config.seed} must not be negative")
    if not 0 <= config.ema_decay < 1:
        raise ValueError(f"ema_decay={config.ema_decay} must be at least 0, which is off, and below 1")
    for key in ("learning_rate", "clip_norm"):
        if not config.optimizer[key] >= 0:
            raise ValueError(f"optimizer.{key}={config.optimizer[key]} must not be negative")


def _check_model(config: ConfigDict) -> None:
    if config.lora.rank and not config.init_from:
        raise ValueError(f"lora.rank={config.lora.rank} adapts released weights: give their folder in init_from")
    model_config(config, vocab_size=config.model.vocab_size or 1)  # the tokenizer may have the last word on that
    if not config.lora.rank and config.model.param_dtype != "float32":
        raise ValueError(
            f"model.param_dtype={config.model.param_dtype!r} rounds small updates of trained weights away; it is for "
            'those that an adapter leaves as they are (lora.rank). Leave it at "float32": model.dtype="bfloat16" is '
            "what computes in bfloat16"
        )


def _check_survival(config: ConfigDict) -> None:
    c = config.checkpoint
    for key, least in (("every", 1), ("keep", 1), ("keep_every", 0), ("keep_best", 0)):
        if c[key] < least:
            raise ValueError(f"checkpoint.{key}={c[key]} must be at least {least}")
    if c.keep_every % c.every:
        raise ValueError(f"checkpoint.keep_every={c.keep_every} must be a multiple of checkpoint.every={c.every}")
    if c.keep_best:
        _check_best(config)
    for key in ("start_seconds", "heartbeat_seconds"):
        if config.distributed[key] < 1:
            raise ValueError(f"distributed.{key}={config.distributed[key]} must be at least 1")
    if config.watchdog.seconds < 0:
        raise ValueError(f"watchdog.seconds={config.watchdog.seconds} must not be negative; 0 is off")
    if config.transfer_guard not in ("allow", "log", "disallow"):
        raise ValueError(f"transfer_guard={config.transfer_guard!r} is not one of allow, log, disallow")
    check_guards(config.guards)
    check_profile(config.profile.steps)


def _check_best(config: ConfigDict) -> None:
    c = config.checkpoint
    if config.objective == "grpo":
        raise ValueError(
            f'checkpoint.keep_best={c.keep_best}: objective="grpo" validates nothing, so that no checkpoint is the '
            "best; set it to 0, and keep more by checkpoint.keep or keep_every"
        )
    if config.validate_every % c.every and c.every % config.validate_every:
        raise ValueError(
            f"checkpoint.keep_best={c.keep_best} needs steps with both checkpoint and validation: make one of "
            f"checkpoint.every={c.every} and validate_every={config.validate_every} a multiple of the other"
        )
    measured = ["validation/loss", *(f"validation/loss/{task.task}" for task in mixture(config))]
    if c.best not in measured:
        raise ValueError(f"checkpoint.best={c.best!r} is no metric of this run; there are {', '.join(measured)}")


def _check_grpo(config: ConfigDict, rows: int) -> None:
    options = grpo_options(config)
    size = options.completions // options.minibatches
    if size % rows:
        raise ValueError(
            f"grpo.prompts × num_generations / minibatches = {size} completions an optimizer step must be a multiple "
            f"of accumulate × devices that share them = {rows}"
        )
    for key, steps in (("steps", config.steps), ("checkpoint.every", config.checkpoint.every)):
        if steps % options.updates:
            raise ValueError(
                f"{key}={steps} must be a multiple of grpo.num_iterations × minibatches = {options.updates} optimizer "
                "steps, which make a phase"
            )
    if options.max_completion_length >= config.data.seq_len:
        raise ValueError(
            f"grpo.max_completion_length={options.max_completion_length} must be below data.seq_len="
            f"{config.data.seq_len}, tokens of a prompt with what the data hold as its answer"
        )
    if not config.init_from:
        raise ValueError('objective="grpo" improves a trained model: give its folder in init_from')
    if config.model.dropout or config.lora.dropout:
        raise ValueError('objective="grpo" needs model.dropout=0 and lora.dropout=0: it learns from its own samples')
    if config.ema_decay:
        raise ValueError('objective="grpo" keeps no running mean of the parameters: set ema_decay=0')
    if config.guards.spike != "off":
        raise ValueError(
            f'guards.spike={config.guards.spike!r}: the loss of objective="grpo" has no level from which it could '
            'leap; set guards.spike="off"'
        )
    if config.guards.nonfinite == "rewind":
        raise ValueError(
            'guards.nonfinite="rewind": a phase of objective="grpo" that is done again is the same phase; set it to '
            '"skip" or "stop"'
        )
