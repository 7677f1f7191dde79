"""Processes that write journals and are killed at chosen points."""

import os
import subprocess
import sys
from pathlib import Path

import superweight

KEY = "ab" * 32
WHAT = {"model": "m", "corpus": "wiki"}

PREAMBLE = f"""
import os, signal, sys, time, types
from pathlib import Path
package = types.ModuleType("superweight.evidence")  # without its __init__, which loads pandas and takes half a second
package.__path__ = [{str(Path(superweight.__file__).parent / "evidence")!r}]
sys.modules["superweight.evidence"] = package
from superweight.evidence.store import Store
root, KEY = Path(sys.argv[1]), {KEY!r}

def say(word):
    print(word, flush=True)

def record(n):
    return {{"number": n, "text": "x" * (n * 7919 % 5000), "value": n / 7}}

def die(name, nth, moment):
    "Kill this process at the nth call of a function of os: before it, in the middle of it, or after it."
    real, calls = getattr(os, name), 0
    def call(*arguments):
        nonlocal calls
        calls += 1
        if calls < nth:
            return real(*arguments)
        if moment == "half":
            real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        if moment == "after":
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(os, name, call)

"""


def record(n):
    """As the processes make it."""
    return {"number": n, "text": "x" * (n * 7919 % 5000), "value": n / 7}


def start(script, root, within=()):
    """A process that runs `script` after the preamble; `within` is a command that runs a command."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [*within, sys.executable, "-c", PREAMBLE + script, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(script, root, within=()):
    """Exit status and words said, of a process that ends by itself."""
    process = start(script, root, within)
    said, _ = process.communicate(timeout=30)
    return process.returncode, said.split()
