"""Let lm-eval learn a task's kind from the first row that can be asked, since it fails on a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass
class Tried:
    """Whether a task was tried on a row of which nothing good can be said, since it has no better."""

    none_sound: bool = False


@contextmanager
def sound_first_row() -> Iterator[Tried]:
    """While tasks are built in the block, the row that they are tried on is the first that can be asked.

    Rows keep their numbers: the task is asked, and its bad rows are told, as the data set has them.
    """
    from lm_eval.api.task import ConfigurableTask

    own, tried = ConfigurableTask.eval_docs, Tried()
    ConfigurableTask.eval_docs = property(lambda task: _Rows(own.fget(task), task, tried))
    try:
        yield tried
    finally:
        ConfigurableTask.eval_docs = own


def as_given(task: Any) -> Any:
    """A task that was built in such a block, with its rows as the data set has them."""
    if isinstance(rows := getattr(task, "task_docs", None), _Rows):
        task.task_docs = rows.given
    return task


class _Rows:
    """A data set whose place 0 is a sound row."""

    def __init__(self, given: Any, task: Any, tried: Tried) -> None:
        self.given, self._task, self._tried = given, task, tried

    def __getattr__(self, name: str) -> Any:
        return getattr(self.given, name)

    def __len__(self) -> int:
        return len(self.given)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.given)

    def __getitem__(self, place: Any) -> Any:
        if place != 0:
            return self.given[place]
        found = next((row for row in self.given if self._is_sound(row)), None)
        self._tried.none_sound = found is None
        return self.given[0] if found is None else found

    def _is_sound(self, row: Any) -> bool:
        task = self._task
        with suppress(Exception):  # the task's own code and templates
            task.doc_to_text(row)
            target = task.doc_to_target(row)
            if task.config.doc_to_choice is None:
                return bool(str(target))
            choices = task.doc_to_choice(row)
            inside = not isinstance(target, int) or 0 <= target < len(choices)
            return bool(choices) and all(choices) and inside
        return False
