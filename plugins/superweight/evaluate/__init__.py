"""Perplexity and zero-shot accuracy of whatever a runner runs.

What tasks and corpora need (cards, downloads) is imported when one is first asked for: scoring needs torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from superweight.evaluate.perplexity import PROTOCOL, perplexity, perplexity_figure, prepare_text, score_batch
from superweight.evaluate.resident import ReferenceStates, ResidentModel
from superweight.evaluate.zero_shot import PreparedTask, prepare_task, zero_shot

if TYPE_CHECKING:
    from superweight.evaluate.corpora import corpus_text, corpus_tokens
    from superweight.evaluate.tasks import Task, load_task, task_file

__all__ = [
    "PROTOCOL",
    "PreparedTask",
    "ReferenceStates",
    "ResidentModel",
    "Task",
    "corpus_text",
    "corpus_tokens",
    "load_task",
    "perplexity",
    "perplexity_figure",
    "prepare_task",
    "prepare_text",
    "score_batch",
    "task_file",
    "zero_shot",
]

_ON_DEMAND = {
    "corpora": ("corpus_text", "corpus_tokens"),
    "tasks": ("Task", "load_task", "task_file"),
}


def __getattr__(name: str) -> Any:
    for module, names in _ON_DEMAND.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
