"""A quantiser that does what its settings say: writes, talks, fails or hangs. Run by launch.py, never imported."""

import os
import subprocess
import sys
import time
from pathlib import Path


def quantise(job):
    doing = job.settings["do"]
    if job.settings["note"]:
        with Path(job.settings["note"]).open("a") as note:
            note.write(f"{os.getpid()}\n")
    (job.out / "half.safetensors").write_bytes(b"half")
    if doing != "bars":
        job.progress(1, 2, "halves")
    print("talking\rover", "itself", end="")
    globals()[doing](job)
    (job.out / "half.safetensors").rename(job.out / "model.safetensors")
    (job.out / "seen.txt").write_text(
        f"{job.source.name} {job.device} {job.windows() if job.calibration else None} {'superweight' in sys.modules} "
        f"{os.environ.get('HF_HUB_OFFLINE')} {sorted(job.settings)}"
    )
    job.copy_tokenizer()
    if doing != "bars":
        job.progress(2, 2, "halves")


def write(job):
    pass


def slow(job):
    time.sleep(1.5)


def bars(job):
    for done in range(3):
        print(f"\r 33%|███  | {done}/3 [00:01<00:02, 1.2it/s]", end="", file=sys.stderr, flush=True)


def crash(job):
    raise ValueError("the tool's own words")


def package(job):
    import not_installed_anywhere  # noqa: F401


def unsupported(job):
    raise job.unsupported("needs a GPU of compute capability 8.9")


def memory(job):
    raise MemoryError("cannot allocate 3 TB")


def disk(job):
    raise OSError(28, "No space left on device")


def die(job):
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)


def leave(job):
    os._exit(7)


def nothing(job):
    (job.out / "half.safetensors").unlink()
    (job.out / "half.safetensors").touch()


def hang(job):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with Path(job.settings["note"]).open("a") as note:
        note.write(f"{child.pid}\n")
    time.sleep(600)


def leave_a_child(job):
    """One that holds the pipe open after the tool has ended."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
