"""The cache: whole or absent, once, whoever asks."""

import errno
import os
import subprocess
import sys

import pytest

from superweight.checkpoint import Cache
from superweight.checkpoint.fetching import cache as cache_module
from superweight.errors import InfraError

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def everything(root):
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and "locks" not in path.parts
    }


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SUPERWEIGHT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Cache().root == tmp_path / ".cache" / "superweight"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Cache().root == tmp_path / "xdg" / "superweight"
    monkeypatch.setenv("SUPERWEIGHT_CACHE", str(tmp_path / "mine"))
    assert Cache().root == tmp_path / "mine"
    assert Cache("~/given").root == tmp_path / "given"
    assert not list(tmp_path.iterdir())  # naming a cache creates nothing


def test_file_is_published_whole(own_cache):
    target = own_cache.path("a", "b.txt")
    with own_cache.publish_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert everything(own_cache.root) == {"a/b.txt"}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_failure_and_interruption_leave_nothing(own_cache, error):
    def fail(publish):
        with publish as temporary:
            if temporary.is_dir():
                (temporary / "part").write_text("half")
            else:
                temporary.write_text("half")
            raise error

    for publish in (own_cache.publish_file, own_cache.publish_directory):
        with pytest.raises(type(error)):
            fail(publish(own_cache.path("x", "artefact")))
    assert not list(own_cache.path("x").iterdir())


def test_directory_is_published_whole(own_cache):
    target = own_cache.path("x", "model")
    with own_cache.publish_directory(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "one").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "one").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_leftovers_of_a_killed_process_are_cleared(own_cache):
    leftover = own_cache.path("x", ".model.tmp-123")
    leftover.mkdir(parents=True)
    (leftover / "part").write_text("half")
    with own_cache.publish_directory(own_cache.path("x", "model")) as temporary:
        (temporary / "part").write_text("whole")
    assert everything(own_cache.root) == {"x/model/part"}


def test_full_disk_is_named(own_cache):
    def fill():
        with own_cache.publish_file(own_cache.path("x", "big")) as temporary:
            temporary.write_text("as much as fits")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InfraError, match="SUPERWEIGHT_CACHE") as caught:
        fill()
    assert caught.value.reason == "disk-full"
    assert not list(own_cache.path("x").iterdir())


def test_hash_is_remembered_until_the_file_changes(own_cache, tmp_path, monkeypatch):
    read = []
    original = cache_module.file_sha256
    monkeypatch.setattr(cache_module, "file_sha256", lambda path, **kw: read.append(path) or original(path, **kw))
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert own_cache.sha256(file) == SHA256_OF_ABC
    assert Cache(own_cache.root).sha256(file) == SHA256_OF_ABC
    assert len(read) == 1
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))
    assert own_cache.sha256(file) != SHA256_OF_ABC
    assert len(read) == 2


def test_hash_does_not_need_a_writable_or_sound_cache(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    (tmp_path / "occupied").write_text("a file where the cache should be")
    assert Cache(tmp_path / "occupied").sha256(file) == SHA256_OF_ABC
    cache = Cache(tmp_path / "cache")
    cache.sha256(file)
    next(cache.path("hashes").iterdir()).write_text("{cut short")
    assert cache.sha256(file) == SHA256_OF_ABC


MAKE_ONCE = """
import sys, time
from pathlib import Path
from superweight.checkpoint import Cache
cache = Cache(sys.argv[1])
target = cache.path("made", "once")
with cache.lock("once"):
    if not target.exists():
        with cache.publish_file(target) as temporary:
            temporary.write_text("whole")
            time.sleep(0.5)
        with Path(sys.argv[1], "log").open("a") as log:
            log.write("made\\n")
print(target.read_text())
"""


def test_two_processes_do_the_work_once(own_cache):
    command = [sys.executable, "-c", MAKE_ONCE, str(own_cache.root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["whole\n", "whole\n"]
    assert own_cache.path("log").read_text() == "made\n"


def test_importing_the_package_stays_light():
    heavy = ("torch", "transformers", "requests", "huggingface_hub", "numpy", "gguf", "pypi_simple", "safetensors")
    code = (
        f"import sys, superweight.checkpoint as c; c.Cache, c.resolve; print([m for m in {heavy} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
