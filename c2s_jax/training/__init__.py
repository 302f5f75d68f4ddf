"""State, optimizer, jitted steps, checkpoints, guards, and what is to be seen of a run."""

from c2s_jax.training.checkpoint import Checkpoints
from c2s_jax.training.guards import Guards, Stopped, guard_counts
from c2s_jax.training.meter import Meter
from c2s_jax.training.optimizer import make_optimizer, make_schedule
from c2s_jax.training.preemption import Preempted, Preemption
from c2s_jax.training.profile import Profile
from c2s_jax.training.recompiles import CountedStep
from c2s_jax.training.state import StatePlan, TrainState, create_state
from c2s_jax.training.step import make_eval_step, make_train_step
from c2s_jax.training.watchdog import Watchdog
from c2s_jax.training.writers import MetricWriter, progress_bar, progress_figures, read_metrics

__all__ = [
    "Checkpoints",
    "CountedStep",
    "Guards",
    "Meter",
    "MetricWriter",
    "Preempted",
    "Preemption",
    "Profile",
    "StatePlan",
    "Stopped",
    "TrainState",
    "Watchdog",
    "create_state",
    "guard_counts",
    "make_eval_step",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "progress_bar",
    "progress_figures",
    "read_metrics",
]
