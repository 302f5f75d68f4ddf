"""What a model is asked: tasks, prompt templates, example formatting and answer parsing."""

from c2s_jax.tasks.registry import TASKS, Task
from c2s_jax.tasks.templates import GeneSlot, Template, load_templates, render

__all__ = ["TASKS", "GeneSlot", "Task", "Template", "load_templates", "render"]
