"""Subcommands on environments: a Python of its own for tools that cannot live beside the gate's versions."""

from __future__ import annotations

import argparse
from typing import Any

from superweight.cli.common import say


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
    env = commands.add_parser("env", help="make, list and remove environments of tools that need other versions")
    kinds = env.add_subparsers(required=True, metavar="make|list|remove")
    make = kinds.add_parser("make", help="make one from its pinned file; minutes, and gigabytes to download")
    make.add_argument("name", metavar="NAME", help="gptq, onnx")
    make.add_argument("--installer", choices=("uv", "pip"), default=None, help="default: uv where there is one")
    make.set_defaults(run=_make)
    kinds.add_parser("list", help="those that can be made, and those that are").set_defaults(run=_list)
    remove = kinds.add_parser("remove", help="remove one, and what older files of its name have made")
    remove.add_argument("name", metavar="NAME", help="gptq, onnx")
    remove.set_defaults(run=_remove)


def _make(options: argparse.Namespace) -> int:
    from superweight.checkpoint import Cache
    from superweight.checkpoint.fetching.environments import make_environment

    make_environment(options.name, Cache(), say, installer=options.installer)
    return 0


def _list(options: argparse.Namespace) -> int:
    from superweight.checkpoint import Cache
    from superweight.checkpoint.fetching.environments import environment_files, lying_there, made_environment

    cache = Cache()
    for name, file in environment_files().items():
        made = made_environment(name, cache)
        print(f"{name:8} {'made' if made else 'not made':9} {file.about}")
        if made:
            print(f"{'':18} {made.directory}")
    current = {name: file.digest for name, file in environment_files().items()}
    for old in lying_there(cache):
        if old.record.get("file") != current.get(str(old.record.get("name"))):
            print(f"{old.record.get('name', '?'):8} {'outdated':9} {old.directory}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from superweight.checkpoint import Cache
    from superweight.checkpoint.fetching.environments import remove_environment

    removed = remove_environment(options.name, Cache())
    for path in removed:
        print(f"removed  {path}")
    if not removed:
        say(f"superweight: there is no environment '{options.name}' to remove")
    return 0 if removed else 1
