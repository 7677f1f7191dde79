"""Whether an artefact was made from a reference, as far as their sizes say."""

from __future__ import annotations

from pathlib import Path

from superweight.artefact.reading import Reader
from superweight.errors import InfraError


def expect_same_model(artefact: Reader, reference: Reader) -> None:
    """Refuse to compare what cannot be compared.

    Raises:
        InfraError: they are one and the same, or of another architecture, size or vocabulary (`unsupported`).
    """
    if _place(artefact.path) == _place(reference.path):
        raise InfraError(
            f"{artefact.path} is the reference itself, which proves nothing. Give the model that it was made from.",
            reason="unsupported",
        )
    one, other = (dict(getattr(reader, "sizes", {})) for reader in (reference, artefact))
    names = [name for name in one if name in other and one[name] != other[name]]
    differ = [f"{name} is {one[name]} in the reference, {other[name]} in the artefact" for name in names]
    if differ:
        raise InfraError(
            f"{artefact.path} is another model than the reference {reference.path}: {'; '.join(differ)}. Give the "
            "model that the artefact was made from.",
            reason="unsupported",
        )


def _place(path: Path) -> Path:
    return path.expanduser().resolve()
