"""What networks are for: data, loss and metric."""

from weightgen.tasks.evaluation import evaluate
from weightgen.tasks.task import Task, get_task, register_task, task_names

__all__ = ["Task", "evaluate", "get_task", "register_task", "task_names"]
