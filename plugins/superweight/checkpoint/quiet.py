"""Keep the chatter of other libraries off the terminal, or collect it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_ABOUT_COMMANDS = ("Custom kwargs can be passed",)  # of every task with metadata
_SHOWN, _MOST = 300, 20  # characters of a warning, and warnings
_LOGGERS = ("lm_eval", "lm-eval", "datasets", "transformers", "huggingface_hub", "fsspec", "evaluate")


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect lm-eval's warnings in the block, once each: first lines, at most twenty."""
    logger, found = logging.getLogger("lm_eval"), _Collector()
    before = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(found)
    try:
        yield found.lines
    finally:
        logger.removeHandler(found)
        logger.level, logger.propagate = before


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"lm-eval warns: {record.getMessage().strip().partition(chr(10))[0][:_SHOWN]}"
        about_figures = not any(part in line for part in _ABOUT_COMMANDS)
        if about_figures and line not in self.lines and len(self.lines) < _MOST:
            self.lines.append(line)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, logging below ERROR and progress bars of lm-eval, datasets and transformers in the block.

    Their progress bars cannot be turned off one by one, so standard error as a whole is set aside, and
    standard output, on which lm-eval prints what it was looking at when it fails.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    loggers = [one for one in loggers if not any(isinstance(handler, _Collector) for handler in one.handlers)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
