"""What a model is asked: tasks, prompt templates, example formatting and answer parsing."""

from c2s_jax.tasks.registry import TASKS, Task
from c2s_jax.tasks.rendering import GeneSlot, Template, render
from c2s_jax.tasks.templates import fixed_texts, load_templates

__all__ = ["TASKS", "GeneSlot", "Task", "Template", "fixed_texts", "load_templates", "render"]
