"""Perplexity and zero-shot accuracy of a model in memory.

What tasks and corpora need (cards, downloads) is imported when one is first asked for: scoring needs torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from superweight.evaluate.perplexity import PROTOCOL, Perplexity, PreparedText, perplexity
from superweight.evaluate.zero_shot import PreparedTask, ZeroShot, prepare_task, zero_shot
from superweight.forward.another_kernel import another_kernel
from superweight.forward.scorer import Scorer

if TYPE_CHECKING:
    from superweight.evaluate.corpora import corpus_text, corpus_tokens
    from superweight.evaluate.tasks import Task, load_task, task_file

__all__ = [
    "PROTOCOL",
    "Perplexity",
    "PreparedTask",
    "PreparedText",
    "Scorer",
    "Task",
    "ZeroShot",
    "another_kernel",
    "corpus_text",
    "corpus_tokens",
    "load_task",
    "perplexity",
    "prepare_task",
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
