"""Perplexity and zero-shot accuracy of a model in memory."""

from superweight.evaluate.corpora import corpus_text, corpus_tokens
from superweight.evaluate.likelihood import Scorer
from superweight.evaluate.perplexity import PROTOCOL, Perplexity, PreparedText, perplexity
from superweight.evaluate.tasks import Task, load_task, task_file
from superweight.evaluate.variation import another_kernel
from superweight.evaluate.zero_shot import PreparedTask, ZeroShot, prepare_task, zero_shot

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
