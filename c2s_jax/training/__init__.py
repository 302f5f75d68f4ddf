"""State, optimizer, jitted steps, checkpoints and metric writers."""

from c2s_jax.training.checkpoint import Checkpoints
from c2s_jax.training.optimizer import make_optimizer, make_schedule
from c2s_jax.training.state import StatePlan, TrainState, create_state
from c2s_jax.training.step import make_eval_step, make_train_step
from c2s_jax.training.writers import MetricWriter, progress_bar, read_metrics

__all__ = [
    "Checkpoints",
    "MetricWriter",
    "StatePlan",
    "TrainState",
    "create_state",
    "make_eval_step",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "progress_bar",
    "read_metrics",
]
