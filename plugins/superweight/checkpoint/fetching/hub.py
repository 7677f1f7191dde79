"""Snapshots of the Hugging Face hub: pinned, safetensors only, never downloaded twice, never code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.cards.source import HubSource
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.download import wrong_hash
from superweight.checkpoint.fetching.problems import disk_full, is_disk_full, missing_package
from superweight.checkpoint.shards import pickle_refused, read_tensors
from superweight.errors import InfraError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_UNWANTED = ("*/*", "consolidated*")  # other frameworks' copies of the same weights
_TIMEOUT = 15.0  # seconds for the one question that tells whether the hub can be reached
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit, on this machine."""

    directory: Path
    commit: str


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit: file name → size in bytes, None if the hub does not say."""

    commit: str
    files: dict[str, int | None]


def fetch(source: HubSource, cache: Cache, *, progress: bool = True) -> Snapshot:
    """The wanted files of a repository, from the user's own hub cache, from ours, or from the hub.

    Only safetensors (or the one GGUF asked for), JSON, text and tokenizer files: no pickle, no Python. A branch or tag
    is resolved to its commit on the hub if that can be reached, and as last seen otherwise.

    Raises:
        InfraError: offline, unauthorised, not-found, pickle, hash-mismatch, disk-full, or missing-package.
    """
    repository = _Repository(source, cache)
    commit = source.revision if _COMMIT.fullmatch(source.revision) else None
    if commit is not None and (local := repository.local(commit, progress)) is not None:
        return local
    try:
        listing = repository.listing
    except InfraError as error:
        if error.reason == "offline" and (local := repository.local(source.revision, progress)) is not None:
            return local
        raise
    if (local := repository.local(listing.commit, progress)) is not None:
        return local
    return repository.download(progress)


def describe(source: HubSource, cache: Cache) -> Iterator[tuple[str, int | None, bool]]:
    """`(what, size in bytes, present)` of every file that `fetch` needs; one line without size if the hub is away."""
    repository = _Repository(source, cache)
    if (local := repository.find(source.revision)) is not None:
        total = sum(file.stat().st_size for file in local.directory.iterdir() if file.is_file())
        yield f"{source} (commit {local.commit})", total, True
        return
    try:
        listing = repository.listing
    except InfraError:
        yield str(source), None, False
        return
    for name, size in sorted(listing.files.items()):
        yield f"hub {source.repository}@{listing.commit[:12]}, {name}", size, repository.has(name, listing.commit)


class _Repository:
    """One source, looked at through huggingface_hub."""

    def __init__(self, source: HubSource, cache: Cache) -> None:
        self.source = source
        self.cache = cache
        self.own = cache.path("hub")

    @cached_property
    def api(self) -> HfApi:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise missing_package("huggingface_hub", "Reading the Hugging Face hub") from error
        return HfApi(library_name="superweight")

    @property
    def wanted(self) -> list[str]:
        return [self.source.gguf_file] if self.source.gguf_file else list(_WANTED)

    @property
    def unwanted(self) -> list[str]:
        return [] if self.source.gguf_file else list(_UNWANTED)

    @cached_property
    def listing(self) -> Listing:
        """Ask the hub what there is; one short question, so that a missing network is noticed at once."""
        with self.explained():
            info = self.api.model_info(
                self.source.repository, revision=self.source.revision, timeout=_TIMEOUT, files_metadata=True
            )
        held: dict[str, int | None] = {file.rfilename: file.size for file in info.siblings or []}
        files = {name: size for name, size in held.items() if self.is_wanted(name)}
        self.check_weights(held, files)
        return Listing(str(info.sha), files)

    def is_wanted(self, name: str) -> bool:
        """Whether a file of the repository is one to fetch; the same patterns decide in `snapshot_download`."""
        wanted, unwanted = (any(fnmatch(name, p) for p in patterns) for patterns in (self.wanted, self.unwanted))
        return wanted and not unwanted

    def check_weights(self, held: dict[str, Any], chosen: dict[str, Any]) -> None:
        """Whether there are weights among the chosen files at all."""
        if any(name.endswith((".safetensors", ".gguf")) for name in chosen):
            return
        pickles = [name for name in held if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        if pickles and not self.source.gguf_file:
            raise pickle_refused(str(self.source), pickles)
        raise InfraError(
            f"{self.source} holds no {self.source.gguf_file or 'safetensors'}; it holds "
            f"{', '.join(sorted(held)[:8]) or 'nothing'}. Choose another revision, or name its gguf_file in the card.",
            reason="not-found",
        )

    def has(self, name: str, commit: str) -> bool:
        """Whether one file is in the user's hub cache or in ours."""
        from huggingface_hub import try_to_load_from_cache

        places = (None, str(self.own))
        return any(
            isinstance(try_to_load_from_cache(self.source.repository, name, cache_dir=place, revision=commit), str)
            for place in places
        )

    def find(self, revision: str) -> Snapshot | None:
        """The whole snapshot from the user's hub cache or from ours; None if neither has all of it."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        for place in (None, self.own):
            try:
                found = self._snapshot(revision, place, local_files_only=True)
            except (LocalEntryNotFoundError, FileNotFoundError):
                continue
            if self._is_whole(found):
                return Snapshot(found, found.name)
        return None

    def local(self, revision: str, progress: bool) -> Snapshot | None:
        """As `find`, and checked against the hashes that the hub gave."""
        found = self.find(revision)
        if found is not None:
            self._verify(found.directory, progress)
        return found

    def download(self, progress: bool) -> Snapshot:
        """Fetch into our own cache; huggingface_hub resumes, and locks against other processes."""
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        shown = not are_progress_bars_disabled()
        if not progress:
            disable_progress_bars()
        try:
            with self.explained():
                found = self._snapshot(self.source.revision, self.own, local_files_only=False)
        finally:
            if shown:
                enable_progress_bars()
        self._verify(found, progress)
        return Snapshot(found, found.name)

    def _snapshot(self, revision: str, place: Path | None, *, local_files_only: bool) -> Path:
        return Path(
            self.api.snapshot_download(
                self.source.repository,
                revision=revision,
                cache_dir=place,
                allow_patterns=self.wanted,
                ignore_patterns=self.unwanted,
                local_files_only=local_files_only,
            )
        )

    def _is_whole(self, directory: Path) -> bool:
        """A snapshot that another program fetched in part is not taken for the whole."""
        if self.source.gguf_file:
            return (directory / self.source.gguf_file).is_file()
        try:
            read_tensors(directory)
        except InfraError:
            return False
        return (directory / "config.json").is_file()

    def _verify(self, directory: Path, progress: bool) -> None:
        """The hub's cache names big files by their sha256: check that the bytes are those."""
        for file in directory.glob(self.source.gguf_file or "*.safetensors"):
            blob = file.resolve()
            if _SHA256.fullmatch(blob.name) and (found := self.cache.sha256(blob, progress=progress)) != blob.name:
                raise wrong_hash(
                    f"{self.source}, {file.name}",
                    expected=blob.name,
                    found=found,
                    advice=f"Delete {blob} and run again.",
                )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn huggingface_hub's errors into ours."""
        try:
            yield
        except InfraError:
            raise
        except Exception as error:
            explained = _explain(error, self.source, self.own)
            if explained is None:
                raise
            raise explained from error


def _explain(error: Exception, source: HubSource, place: Path) -> InfraError | None:
    from huggingface_hub import errors

    if is_disk_full(error):
        return disk_full(place, f"downloading {source}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return InfraError(
            f"{source}: the hub answered {status}: the repository is gated or private, or its name is wrong. Accept "
            "its terms on its page and set HF_TOKEN to a token that may read it; check the name otherwise.",
            reason="unauthorised",
        )
    if isinstance(
        error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)
    ):
        return InfraError(
            f"{source}: the hub answered {status}: no such repository, revision or file. Correct the card.",
            reason="not-found",
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError)) or (
        type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3")
    ):
        return InfraError(
            f"{source}: the Hugging Face hub cannot be reached ({type(error).__name__}: {_first_line(error)}), and no "
            "whole copy is on this machine. Check the network and HF_HUB_OFFLINE, fetch it where the hub can be "
            "reached and copy the cache, or point a card at a local directory.",
            reason="offline",
        )
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
