"""Measures every cell of a project's smoke tier in one life after another, each ended by SIGKILL, until one gets through.

    python lives.py CARDS STORE OUT APPENDS

Every life may add APPENDS records to the store's journals (0: any number) and then dies: before it writes one, in the
middle of writing one, or just after. The last writes the evidence of all cells to OUT; the number of lives is printed.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch  # noqa: F401 - imported once, before the forks

import superweight.evaluate.lm  # noqa: F401
from superweight.cards import cells, load_library
from superweight.evidence import Journal, Store
from superweight.measure import CellMeasurer


def live(cards, store, out):
    library, evidence = load_library([cards]), {}
    tier = library.tiers["smoke"]
    bench = CellMeasurer(library, evidence, device="cpu", store=Store(store))
    models, recipes = ([getattr(library, kind)[name] for name in getattr(tier, kind)] for kind in ("models", "recipes"))
    for cell in cells(library, models, recipes):
        bench.plan(cell.model.id, [*tier.perplexity, *tier.tasks])
        if cell.role != "baseline":
            bench.sanity(cell)
        for entry in tier.perplexity:
            bench.perplexity(cell, entry)
        for entry in tier.tasks:
            bench.zero_shot(cell, entry)
    raw = {
        name: cell.model_dump()
        | {"items": {task: figure.items for task, figure in cell.zero_shot.items()}, "seconds": {}, "reused": {}}
        for name, cell in evidence.items()
    }
    out.write_text(json.dumps(raw, sort_keys=True))


def doomed(appends, way):
    """Replace `UndoLog.append` by one that kills the process at the given call."""
    whole, calls = Journal.append, [0]

    def append(self, record):
        calls[0] += 1
        if calls[0] < appends or way == "after":
            whole(self, record)
        if calls[0] < appends:
            return
        if way == "middle":
            line = json.dumps({"record": record})
            os.write(os.open(self.path, os.O_WRONLY | os.O_APPEND), line[: len(line) // 2].encode())
        os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append


def main():
    cards, store, out = map(Path, sys.argv[1:4])
    appends, lives = int(sys.argv[4]), 0
    while not out.exists():
        pid = os.fork()
        if pid == 0:
            if appends:
                doomed(appends, ("after", "middle", "before")[lives % 3] if appends > 1 else "after")
            live(cards, store, out)
            os._exit(0)
        lives += 1
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            sys.exit(1)
    print(lives)


if __name__ == "__main__":
    main()
