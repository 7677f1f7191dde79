"""The hub: present (a small server that speaks its protocol), absent, and saying no."""

import hashlib
import json
import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from superweight.cards.source import HubSource
from superweight.checkpoint import load_model, planned_downloads, resolve
from superweight.errors import InfraError
from support.web import Page

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny"


def source(**changes):
    return HubSource(**{"kind": "hub", "repository": REPOSITORY, "revision": COMMIT, **changes})


@pytest.fixture
def hub(web, monkeypatch, tmp_path):
    """A hub at a local address, and an empty hub cache of the user's."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, web.url)
    monkeypatch.setattr(constants, "ENDPOINT", web.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def publish(files, *, commit=COMMIT, repository=REPOSITORY, revisions=(COMMIT, "main"), **page):
        siblings, tree = [], []
        for name, body in files.items():
            sha256 = hashlib.sha256(body).hexdigest()
            big = name.endswith((".safetensors", ".bin"))
            etag = sha256 if big else hashlib.sha1(body).hexdigest()
            lfs = {"oid": sha256, "sha256": sha256, "size": len(body), "pointerSize": 134}
            siblings.append({"rfilename": name, "size": len(body)})
            tree.append({"type": "file", "path": name, "size": len(body), "oid": etag, **({"lfs": lfs} if big else {})})
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            web.pages[f"/{repository}/resolve/{commit}/{name}"] = Page(body, headers=headers, **page)
        info = {
            "id": repository,
            "modelId": repository,
            "sha": commit,
            "siblings": siblings,
            "private": False,
            "tags": [],
        }
        kind = {"Content-Type": "application/json"}
        for revision in revisions:
            web.pages[f"/api/models/{repository}/revision/{revision}"] = Page(json.dumps(info).encode(), headers=kind)
            web.pages[f"/api/models/{repository}/tree/{revision}"] = Page(json.dumps(tree).encode(), headers=kind)

    web.publish = publish
    return web


@pytest.fixture
def files(tiny):
    found = {path.name: path.read_bytes() for path in tiny.iterdir()}
    return {**found, "pytorch_model.bin": b"pickle", "modeling.py": b"evil", "onnx/model.safetensors": b"other"}


def refused(reason, wanted, cache):
    started = time.monotonic()
    with pytest.raises(InfraError) as caught:
        resolve(wanted, cache, progress=False)
    assert caught.value.reason == reason
    assert time.monotonic() - started < 10
    return str(caught.value)


def test_snapshot_is_fetched_once_without_code_and_pickle(hub, files, own_cache):
    hub.publish(files)
    checkpoint = resolve(source(), own_cache, progress=False)
    assert checkpoint.origin == f"hub {REPOSITORY}@{COMMIT}"
    assert checkpoint.directory.is_relative_to(own_cache.path("hub"))
    names = {path.name for path in checkpoint.directory.rglob("*")}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert load_model(checkpoint).tokenizer
    asked = len(hub.log)
    assert resolve(source(), own_cache, progress=False) == checkpoint
    assert len(hub.log) == asked


def test_branch_is_resolved_to_its_commit(hub, files, own_cache):
    hub.publish(files)
    assert resolve(source(revision="main"), own_cache, progress=False).origin == f"hub {REPOSITORY}@{COMMIT}"
    newer = "f" * 40
    hub.publish(files, commit=newer, revisions=(newer, "main"))
    assert resolve(source(revision="main"), own_cache, progress=False).origin == f"hub {REPOSITORY}@{newer}"


def test_branch_as_last_seen_when_the_hub_is_away(hub, files, own_cache, monkeypatch):
    hub.publish(files)
    before = resolve(source(revision="main"), own_cache, progress=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(source(revision="main"), own_cache, progress=False) == before
    assert resolve(source(revision=COMMIT), own_cache, progress=False) == before


def test_users_own_hub_cache_is_used(hub, files, own_cache, tmp_path, monkeypatch):
    hub.publish(files)
    huggingface_hub.snapshot_download(REPOSITORY, revision=COMMIT, cache_dir=tmp_path / "user", endpoint=hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(source(), own_cache, progress=False).directory.is_relative_to(tmp_path / "user")
    assert [planned.present for planned in planned_downloads(source(), own_cache)] == [True]


def test_partial_snapshot_of_the_user_is_not_taken_for_the_whole(hub, files, own_cache, tmp_path):
    hub.publish(files)
    huggingface_hub.hf_hub_download(
        REPOSITORY, "config.json", revision=COMMIT, cache_dir=tmp_path / "user", endpoint=hub.url
    )
    assert resolve(source(), own_cache, progress=False).directory.is_relative_to(own_cache.root)


def test_describe_lists_what_will_be_downloaded(hub, files, own_cache):
    hub.publish(files)
    planned = {
        item.what.rpartition(", ")[2]: (item.size, item.present) for item in planned_downloads(source(), own_cache)
    }
    wanted = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert planned == {name: (len(files[name]), False) for name in wanted}
    resolve(source(), own_cache, progress=False)
    assert [(item.present) for item in planned_downloads(source(), own_cache)] == [True]


def test_describe_without_a_hub(own_cache):
    assert [(item.size, item.present) for item in planned_downloads(source(repository="no/where"), own_cache)] == [
        (None, False)
    ]


def test_damaged_file_is_noticed(hub, files, own_cache):
    hub.publish(files)
    page = hub.pages[f"/{REPOSITORY}/resolve/{COMMIT}/model.safetensors"]
    page.body = page.body[:-1] + bytes([page.body[-1] ^ 1])
    message = refused("hash-mismatch", source(), own_cache)
    assert hashlib.sha256(files["model.safetensors"]).hexdigest() in message
    assert "Delete" in message


def test_repository_with_pickle_only(hub, own_cache):
    hub.publish({"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert "pytorch_model.bin" in refused("pickle", source(), own_cache)


def test_repository_without_weights(hub, own_cache):
    hub.publish({"README.md": b"nothing yet"})
    assert "README.md" in refused("not-found", source(), own_cache)


def test_gguf_of_a_repository_that_has_none(hub, files, own_cache):
    hub.publish(files)
    assert "model.Q4.gguf" in refused("not-found", source(gguf_file="model.Q4.gguf"), own_cache)


@pytest.mark.parametrize(
    ("status", "code", "reason", "said"),
    [
        (401, "GatedRepo", "unauthorised", "HF_TOKEN"),
        (403, "GatedRepo", "unauthorised", "HF_TOKEN"),
        (401, "RepoNotFound", "unauthorised", "HF_TOKEN"),
        (403, "", "unauthorised", "HF_TOKEN"),
        (404, "RepoNotFound", "not-found", "no such repository"),
        (404, "RevisionNotFound", "not-found", "no such repository, revision"),
        (503, "", "offline", "503"),
    ],
)
def test_refusals_of_the_hub(hub, own_cache, status, code, reason, said):
    headers = {"X-Error-Code": code} if code else {}
    hub.pages[f"/api/models/{REPOSITORY}/revision/{COMMIT}"] = Page(b"{}", status, headers)
    assert said in refused(reason, source(), own_cache)


def test_gate_that_closes_at_the_weights(hub, files, own_cache):
    hub.publish(files)
    hub.pages[f"/{REPOSITORY}/resolve/{COMMIT}/model.safetensors"] = Page(b"", 403, {"X-Error-Code": "GatedRepo"})
    assert "HF_TOKEN" in refused("unauthorised", source(), own_cache)


def test_token_is_sent(hub, files, own_cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.publish(files, authorization="Bearer hf_secret")
    assert resolve(source(), own_cache, progress=False).tensors


def test_hub_out_of_reach_is_told_quickly(hub, own_cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE" in refused("offline", source(), own_cache)


def test_offline_mode_is_told_at_once(hub, own_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert REPOSITORY in refused("offline", source(), own_cache)
    assert not hub.log
