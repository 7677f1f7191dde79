"""Third-party chatter kept off the terminal: what matters is said by this library."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

_LOGGERS = ("lm_eval", "lm-eval", "datasets", "transformers", "huggingface_hub", "fsspec", "evaluate")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, logging below ERROR and progress bars of lm-eval, datasets and transformers in the block.

    Their progress bars cannot be turned off one by one, so standard error as a whole is set aside.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
