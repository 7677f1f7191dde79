"""The settings of one run: what is gated, with what, and where the run is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a run is told, whoever tells it: options of a command line or a script.

    Attributes:
        tier: id of the tier card that says what is measured.
        models: card ids, directories, `.gguf` files or hub ids, in place of the tier's models.
        recipes: card ids or paths of recipe cards, in place of the tier's recipes.
        artefacts: directories, `.gguf` files or hub ids of compressed checkpoints, gated against the one model in
            place of the tier's recipes.
        cards: directories of cards beside the built-in ones.
        device: `cpu`, `cuda` or `cuda:N`; CUDA where there is one if None.
        dtype: arithmetic of forward passes, `float32`, `float16` or `bfloat16`; the model card's, else the checkpoint's
            own, if None.
        stopping: whether a measurement ends as soon as its verdict is valid; as the tier says if None.
        out: the run directory.
        store: directory of measurements that are kept and found again, and of the history of runs; None keeps nothing.
        baselines: directory of the release baselines.
    """

    tier: str = "smoke"
    models: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()
    cards: tuple[Path, ...] = ()
    device: str | None = None
    dtype: str | None = None
    stopping: bool | None = None
    out: Path = Path("reports/latest")
    store: Path | None = Path("reports/store")
    baselines: Path = Path("reports/baselines")
