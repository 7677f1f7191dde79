"""Another way to run the same model, whose figures should not differ: what an A/A repeat is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from superweight.checkpoint.quiet import quiet

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel


@contextmanager
def another_kernel(loaded: LoadedModel) -> Iterator[str]:
    """Run attention by another implementation inside the block.

    Yields:
        what is different, in words; empty if the model has no other implementation, and is left as it is.
    """
    model = loaded.model
    before = str(getattr(model.config, "_attn_implementation", ""))
    other = "sdpa" if before == "eager" else "eager"
    try:
        with quiet():
            model.set_attn_implementation(other)
    except (AttributeError, ImportError, NotImplementedError, ValueError):
        yield ""
        return
    try:
        yield f"{other} attention instead of {before}"
    finally:
        with quiet():
            model.set_attn_implementation(before)
