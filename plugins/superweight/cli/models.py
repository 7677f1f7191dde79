"""Subcommands on models: what cards there are, a project of one's own, downloads, detection."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from superweight.cli.common import library, say
from superweight.gc_pause import gc_paused
from superweight.tiers import TIERS


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
    commands.add_parser("cards", help="list the models, recipes, corpora, tasks and tiers at hand").set_defaults(
        run=_cards
    )
    init = commands.add_parser(
        "init", help="write suites, example cards and a pytest configuration; overwrites nothing"
    )
    init.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: this directory")
    init.set_defaults(run=_init)
    _fetch_arguments(commands.add_parser("fetch", help="get checkpoints, and the data to measure them with"))
    _detect_arguments(commands.add_parser("detect", help="find a model's super weights and confirm them by ablation"))


def _fetch_arguments(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("models", nargs="+", metavar="MODEL", help="a card id, a directory, a .gguf file or a hub id")
    fetch.add_argument("--tier", default="smoke", choices=TIERS, help="whose data; default smoke")
    fetch.set_defaults(run=_fetch)


def _detect_arguments(detect: argparse.ArgumentParser) -> None:
    detect.add_argument("source", metavar="SOURCE", help="a card id, a directory, a .gguf file or a hub id")
    detect.add_argument("--json", action="store_true", help="JSON on standard output")
    detect.add_argument("--device", default=None, help="cpu, cuda or cuda:N; default cuda where there is one")
    detect.add_argument(
        "--dtype", default=None, choices=("float32", "float16", "bfloat16"), help="arithmetic of forward passes"
    )
    detect.set_defaults(run=_detect)


def _cards(options: argparse.Namespace) -> int:
    cards = library(options)
    for name in ("models", "recipes", "corpora", "tasks", "gates", "waivers", "tiers"):
        print(f"{name}:")
        for identifier, card in getattr(cards, name).items():
            print(f"  {identifier:40} {getattr(card, 'title', '')}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from superweight.starter import init

    written, left = init(options.directory)
    for path, new in written:
        print(f"{'wrote' if new else 'kept '}  {path}")
    if left:
        print(left)
    print("Gate the embedded model with: pytest suites/ -k smollm2")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from superweight.fetch import fetch

    cards = library(options)
    return fetch([cards.model(argument) for argument in options.models], cards, cards.tiers[options.tier])


def _detect(options: argparse.Namespace) -> int:
    card = library(options).model(options.source)
    with gc_paused():
        from superweight.checkpoint import Cache, load_model, resolve
        from superweight.detect import as_table, detect
        from superweight.measure.environment import default_device
        from superweight.report import strict_json

    checkpoint = resolve(card.source, Cache())
    loaded = load_model(
        checkpoint, device=options.device or default_device(), compute_dtype=options.dtype or card.compute_dtype
    )
    found = detect(loaded, known=card.super_weights, progress=say)
    if options.json:
        print(strict_json({"model": card.id, "origin": checkpoint.origin, **found.as_dict()}), end="")
    else:
        print(as_table(found, title=f"{card.title}: {checkpoint.origin}"))
    return 0
