"""Downloads that go wrong in every way a network and a disk can."""

import errno
import hashlib
import os
import random
import socket

import pytest
import requests

from superweight.checkpoint.fetching import download as module
from superweight.checkpoint.fetching.download import Download, download
from superweight.errors import InfraError
from support.web import Page

BODY = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def fetch(web, tmp_path):
    """Download `/file` without real waiting; returns the target and the pauses taken."""
    pauses = []

    def fetch(path="/file", sha256=SHA256, url=None, **kwargs):
        job = Download(url or web.url + path, sha256, "the thing", "Do this.")
        return download(job, tmp_path / "out" / "thing", progress=False, sleep=pauses.append, **kwargs)

    fetch.target, fetch.partial, fetch.pauses = tmp_path / "out" / "thing", tmp_path / "out" / "thing.partial", pauses
    return fetch


def refused(fetch, reason, **kwargs):
    with pytest.raises(InfraError) as caught:
        fetch(**kwargs)
    assert caught.value.reason == reason
    assert not fetch.target.exists()
    return str(caught.value)


def test_whole_file(web, fetch):
    web.pages["/file"] = Page(BODY)
    assert fetch().read_bytes() == BODY
    assert not fetch.partial.exists()
    assert fetch.pauses == []


def test_cut_connection_is_resumed_where_it_was_cut(web, fetch):
    web.pages["/file"] = Page(BODY, cuts=[300_000, 200_000])
    assert fetch().read_bytes() == BODY
    asked = [headers.get("Range") for headers in web.requests("/file")]
    assert asked == [None, "bytes=262144-", "bytes=458752-"]  # 4 and 7 whole chunks of 65536 bytes had come


def test_earlier_partial_file_is_resumed(web, fetch):
    web.pages["/file"] = Page(BODY)
    fetch.partial.parent.mkdir()
    fetch.partial.write_bytes(BODY[:999_000])
    assert fetch().read_bytes() == BODY
    assert [headers.get("Range") for headers in web.requests("/file")] == ["bytes=999000-"]


def test_complete_partial_file_is_only_checked(web, fetch):
    web.pages["/file"] = Page(BODY)
    fetch.partial.parent.mkdir()
    fetch.partial.write_bytes(BODY)
    assert fetch().read_bytes() == BODY


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * 2_000_000], ids=["other bytes", "longer than the whole"])
def test_partial_file_of_something_else_is_replaced(web, fetch, left):
    web.pages["/file"] = Page(BODY)
    fetch.partial.parent.mkdir()
    fetch.partial.write_bytes(left)
    assert fetch().read_bytes() == BODY


def test_server_without_ranges_starts_again(web, fetch):
    web.pages["/file"] = Page(BODY, ranges=False, cuts=[400_000])
    assert fetch().read_bytes() == BODY


def test_wrong_range_in_the_answer_starts_again(web, fetch):
    web.pages["/file"] = Page(BODY, status=206, headers={"Content-Range": "bytes 5-9/10"})
    fetch.partial.parent.mkdir()
    fetch.partial.write_bytes(BODY[:10])
    assert "bytes 5-9/10" in refused(fetch, "offline")
    assert not fetch.partial.exists()


def test_wrong_hash_names_both_and_keeps_nothing(web, fetch):
    web.pages["/file"] = Page(BODY)
    message = refused(fetch, "hash-mismatch", sha256="0" * 64)
    assert "0" * 64 in message
    assert SHA256 in message
    assert not fetch.partial.exists()


@pytest.mark.parametrize(
    ("status", "reason", "requests_made"),
    [
        (401, "unauthorised", 1),
        (403, "unauthorised", 1),
        (404, "not-found", 1),
        (410, "not-found", 1),
        (503, "offline", 4),
    ],
)
def test_refusals_of_the_server(web, fetch, status, reason, requests_made):
    web.pages["/file"] = Page(b"no", status)
    message = refused(fetch, reason)
    assert str(status) in message
    assert "Do this." in message
    assert len(web.log) == requests_made  # only what may pass is tried again


def test_passing_failure_is_tried_again(web, fetch):
    web.pages["/file"] = Page(b"busy", 503)

    def mend(seconds):
        web.pages["/file"] = Page(BODY)

    job = Download(f"{web.url}/file", SHA256, "the thing")
    assert download(job, fetch.target, progress=False, sleep=mend).read_bytes() == BODY


def test_connection_refused_is_offline(fetch):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound but not listening
        message = refused(fetch, "offline", url=f"http://127.0.0.1:{reserved.getsockname()[1]}/file")
    assert "refused" in message
    assert fetch.pauses == [0.5, 1.0, 2.0]


def test_nonsense_url_is_not_tried_again(fetch):
    refused(fetch, "not-found", url="gopher://example/file")
    assert fetch.pauses == []


class Breaking(requests.Session):
    """A session whose answers break off with an error after some bytes."""

    def __init__(self, error, after=1):
        super().__init__()
        self.error, self.after = error, after

    def get(self, *args, **kwargs):
        response = super().get(*args, **kwargs)
        chunks = response.iter_content(100_000)

        def breaking(_):
            for _ in range(self.after):
                yield next(chunks)
            raise self.error

        response.iter_content = breaking
        return response


def test_full_disk_while_writing(web, fetch):
    web.pages["/file"] = Page(BODY)
    message = refused(fetch, "disk-full", session=Breaking(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert str(fetch.target.parent) in message
    assert fetch().read_bytes() == BODY  # with space again, the part that fitted is used
    assert web.requests("/file")[-1]["Range"] == "bytes=100000-"


def test_disk_that_is_too_small_is_noticed_before(web, fetch, monkeypatch):
    web.pages["/file"] = Page(BODY)
    usage = type("usage", (), {"free": 999_999})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    assert "1000000 bytes" in refused(fetch, "disk-full")


def test_interruption_leaves_only_the_partial_file(web, fetch):
    web.pages["/file"] = Page(BODY)
    with pytest.raises(KeyboardInterrupt):
        fetch(session=Breaking(KeyboardInterrupt(), after=3))
    assert [path.name for path in fetch.target.parent.iterdir()] == ["thing.partial"]
    assert fetch().read_bytes() == BODY
    assert web.requests("/file")[-1]["Range"] == "bytes=300000-"
