"""Writing that is killed, interrupted, run twice at once or out of disk: nothing half-written has the artefact's name."""

import errno
import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from superweight.artefact.writing import compressed_tensors, work
from superweight.artefact.writing.compressed_tensors import write
from superweight.errors import InfraError
from support.writing import SUPER, W4

SMALL = 12_000

KILLED_AT_THE_THIRD_FILE = """
import os, signal, sys
from pathlib import Path
from superweight.artefact.writing import compressed_tensors
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint import open_directory

write_shard, calls = compressed_tensors.write_shard, []
def killed(path, *rest):
    calls.append(path)
    if len(calls) == 3:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    write_shard(path, *rest)
compressed_tensors.write_shard = killed
card = RecipeCard(id="tiny", title="Tiny", role="reference", method={method})
compressed_tensors.write(open_directory(sys.argv[1]), card, Path(sys.argv[2]), {{}}, shard_size=12_000, progress=False)
"""


def hashes(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name != "superweight.json"
    }


def hidden(directory):
    return directory.parent / f".{directory.name}.partial"


def test_a_killed_run_goes_on_from_its_last_whole_file(checkpoint, written, tmp_path):
    source, target = checkpoint("llama"), tmp_path / "killed"
    code = KILLED_AT_THE_THIRD_FILE.format(method=repr(W4))
    killed = subprocess.run([sys.executable, "-c", code, source.directory, target], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not target.exists()
    whole = sorted(path for path in hidden(target).glob("*.safetensors") if path.stat().st_size > 100)
    assert len(whole) == 2
    inodes = {path.name: path.stat().st_ino for path in whole}
    made = written(source, W4, name="killed", shard_size=SMALL)
    assert made.taken_up == 2
    assert {name: (target / name).stat().st_ino for name in inodes} == inodes  # not written again
    assert not hidden(target).exists()
    assert hashes(target) == hashes(written(source, W4, name="whole", shard_size=SMALL).directory)


def _fail_at(monkeypatch, number, error):
    write_shard, calls = compressed_tensors.write_shard, []

    def failing(path, *rest):
        calls.append(path)
        if len(calls) == number:
            raise error
        write_shard(path, *rest)

    monkeypatch.setattr(compressed_tensors, "write_shard", failing)


@pytest.mark.parametrize(
    ("error", "reason"), [(KeyboardInterrupt(), "interrupted"), (OSError(errno.ENOSPC, "No space"), "disk-full")]
)
def test_an_interruption_and_a_full_disk_say_where_the_next_run_begins(
    checkpoint, written, tmp_path, monkeypatch, error, reason
):
    source = checkpoint("llama")
    with monkeypatch.context() as patched:
        _fail_at(patched, 3, error)
        with pytest.raises(
            InfraError, match=r"the same command goes on from 2 whole files in .*\.artefact\.partial"
        ) as e:
            written(source, W4, shard_size=SMALL)
    assert e.value.reason == reason
    assert [path.name for path in tmp_path.iterdir()] == [".artefact.partial"]
    assert written(source, W4, shard_size=SMALL).taken_up == 2


def test_other_inputs_begin_anew(checkpoint, written, tmp_path, monkeypatch):
    source = checkpoint("llama")
    with monkeypatch.context() as patched:
        _fail_at(patched, 3, KeyboardInterrupt())
        with pytest.raises(InfraError):
            written(source, W4, shard_size=SMALL)
    for method, known in (({**W4, "bits": 3}, ()), (W4, (SUPER,))):
        kept = tmp_path / "kept"
        shutil.copytree(tmp_path / ".artefact.partial", kept)
        made = written(source, method, known, shard_size=SMALL)
        assert made.taken_up == 0
        shutil.rmtree(made.directory)
        kept.rename(tmp_path / ".artefact.partial")


def test_a_file_that_was_damaged_meanwhile_is_written_again(checkpoint, written, tmp_path, monkeypatch):
    source = checkpoint("llama")
    with monkeypatch.context() as patched:
        _fail_at(patched, 3, KeyboardInterrupt())
        with pytest.raises(InfraError):
            written(source, W4, shard_size=SMALL)
    first = min((tmp_path / ".artefact.partial").glob("*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    (tmp_path / ".artefact.partial" / "stray").mkdir()
    assert written(source, W4, shard_size=SMALL).taken_up == 1
    assert not (tmp_path / "artefact" / "stray").exists()


def test_a_disk_that_is_too_small_is_told_of_before_anything_is_written(checkpoint, written, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(work.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        InfraError, match=r"artefact takes \d+\.\d MB more, and 0\.0 MB are free on that disk"
    ) as caught:
        written(checkpoint("llama"), W4)
    assert caught.value.reason == "disk-full"
    assert not list(tmp_path.iterdir())


def test_two_at_once(checkpoint, recipe, tmp_path, monkeypatch):
    """The second is told; it neither writes nor clears away what the first has."""
    source, target = checkpoint("llama"), tmp_path / "artefact"
    verify, tried = compressed_tensors.verify_shard, []

    def meanwhile(path, *rest):
        if not tried:
            tried.append(path)
            with pytest.raises(InfraError, match="another process is writing"):
                write(source, recipe(**W4), target, {}, shard_size=SMALL, progress=False)
            assert path.is_file()
        verify(path, *rest)

    monkeypatch.setattr(compressed_tensors, "verify_shard", meanwhile)
    assert write(source, recipe(**W4), target, {}, shard_size=SMALL, progress=False).modules == 14
    assert tried


def test_an_unforeseen_error_leaves_nothing(checkpoint, written, tmp_path, monkeypatch):
    _fail_at(monkeypatch, 3, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        written(checkpoint("llama"), W4, shard_size=SMALL)
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_made(checkpoint, recipe, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write(checkpoint("llama"), recipe(**W4), Path(tmp_path / "file" / "artefact"), {}, progress=False)
