"""The plugin's command-line options and ini keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from superweight.gate.settings import Settings
from superweight.tiers import TIERS


def add_options(parser: pytest.Parser) -> None:
    """Register options, all prefixed `--superweight-`, and ini keys, all prefixed `superweight_`."""
    group = parser.getgroup("superweight", "release gates for compressed language models")
    group.addoption(
        "--superweight-tier",
        choices=TIERS,
        help="how much is measured: smoke (default: the embedded model, a subset of recipes), nightly, release",
    )
    group.addoption("--superweight-out", metavar="DIR", help="where the run is written; default reports/latest")
    group.addoption("--superweight-device", metavar="D", help="cpu, cuda or cuda:N; default cuda where there is one")
    group.addoption(
        "--superweight-dtype",
        choices=("float32", "float16", "bfloat16"),
        help="arithmetic of forward passes; default: the model card's, else the checkpoint's own",
    )
    group.addoption(
        "--superweight-model",
        action="append",
        default=[],
        metavar="HUB_ID_OR_DIR",
        help="gate this model: a card id, directory, .gguf file or hub id, with or without a card; may be repeated",
    )
    group.addoption(
        "--superweight-recipe",
        action="append",
        default=[],
        metavar="FILE",
        help="gate with this recipe: a card id or a TOML file; may be repeated; replaces the tier's recipes",
    )
    group.addoption(
        "--superweight-artefact",
        action="append",
        default=[],
        metavar="DIR",
        help="gate this compressed checkpoint against the model of --superweight-model, which it was made from: a "
        "directory, .gguf file or hub id; needs no card; may be repeated; replaces the tier's recipes",
    )
    group.addoption(
        "--superweight-store",
        metavar="DIR",
        help="where measurements are written down as they are taken and found again, and where the history of runs is "
        "kept; 'none' keeps nothing; default reports/store",
    )
    group.addoption(
        "--superweight-stopping",
        choices=("on", "off"),
        help="end a measurement as soon as its verdict is valid; default: the tier's",
    )
    group.addoption(
        "--superweight-progress",
        choices=("auto", "live", "off"),
        default="auto",
        help="show on the terminal what is measured, how far it is and what was found; default auto: not in CI, not "
        "with -v or -s, and not where the output is no terminal",
    )
    parser.addini(
        "superweight_cards", "directories of your own cards, relative to the ini file", type="paths", default=[]
    )
    parser.addini("superweight_tier", "default of --superweight-tier", default=Settings.tier)
    parser.addini("superweight_out", "default of --superweight-out", default=str(Settings.out))
    parser.addini("superweight_store", "default of --superweight-store", default=str(Settings.store))
    parser.addini("superweight_baselines", "where release baselines are kept", default=str(Settings.baselines))


def settings_of(config: pytest.Config) -> Settings:
    """The settings of a run: command line before ini before default.

    Raises:
        pytest.UsageError: the ini file names a tier that does not exist.

    """
    tier = config.getoption("superweight_tier") or config.getini("superweight_tier")
    if tier not in TIERS:
        raise pytest.UsageError(f"superweight_tier = {tier!r}: expected one of {', '.join(TIERS)}")
    out = Path(config.getoption("superweight_out") or config.getini("superweight_out"))
    store = config.getoption("superweight_store") or config.getini("superweight_store")
    stopping = config.getoption("superweight_stopping")
    return Settings(
        tier=tier,
        models=tuple(config.getoption("superweight_model")),
        recipes=tuple(config.getoption("superweight_recipe")),
        artefacts=tuple(config.getoption("superweight_artefact")),
        cards=tuple(Path(path) for path in config.getini("superweight_cards")),
        device=config.getoption("superweight_device"),
        dtype=config.getoption("superweight_dtype"),
        stopping=None if stopping is None else stopping == "on",
        out=config.rootpath / out,
        store=None if store == "none" else config.rootpath / store,
        baselines=config.rootpath / config.getini("superweight_baselines"),
    )
