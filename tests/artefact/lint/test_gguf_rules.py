"""Rules on GGUF files: each finds a file that is bad in one way, and leaves good ones alone."""

import json

import gguf
import numpy as np
import pytest

from superweight.artefact.check import check, look
from superweight.artefact.gguf import GgufReader
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.cards.source import GgufSource
from superweight.checkpoint import resolve
from support.ggufs import quantised, write
from support.tiny_gguf import TOKENS, write_gguf

DOWN = "blk.{}.ffn_down.weight"
WHERE = Coordinate(layer=1, row=5, column=40)
Q8_0, Q4_K_M, Q4_0 = (gguf.LlamaFileType[f"MOSTLY_{name}"] for name in ("Q8_0", "Q4_K_M", "Q4_0"))


def findings(path, reference=None, *, thorough=True):
    reader = open_reader(path)
    if reference is None:
        found = look(reader, thorough=thorough)
    else:
        found = check(reader, reference, {WHERE: "listed"}, Promise.of("within-step"), thorough=thorough)
    assert not found.unchecked
    return {(one.rule, one.severity): f"{one.where} {one.found}" for one in found.findings}


def one_finding(path, rule, severity="error", **kwargs):
    found = findings(path, **kwargs)
    assert list(found) == [(rule, severity)]
    return found[rule, severity]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    from superweight.checkpoint import Cache

    directory = tmp_path_factory.mktemp("reference")
    path = write_gguf(directory / "reference.gguf", down="F32", inner=256)
    source = GgufSource(kind="gguf", path=str(path))
    return open_reader(resolve(source, Cache(directory / "cache"), progress=False).directory)


@pytest.fixture
def good(tmp_path):
    return write_gguf(tmp_path / "tiny-Q8_0.gguf", inner=256, file_type=Q8_0)


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("down", ["Q8_0", "F16", "Q4_0", "MXFP4"])
def test_good_files_have_no_findings(down, thorough, tmp_path, reference):
    path = write_gguf(tmp_path / "tiny.gguf", down=down, inner=256)
    assert findings(path, thorough=thorough) == {}
    assert findings(path, reference=reference, thorough=thorough) == {}


def overwrite(path, tensor, at, raw):
    start = GgufReader(path).model.tensors[tensor].start
    held = bytearray(path.read_bytes())
    held[start + at : start + at + len(raw)] = raw
    path.write_bytes(held)


def test_a_tensor_that_lies_elsewhere_than_after_the_one_before(good):
    held = bytearray(good.read_bytes())
    name = DOWN.format(1).encode()
    at = held.index(name) + len(name) + 4 + 2 * 8 + 4  # number of dimensions, two sizes, type
    offset = int.from_bytes(held[at : at + 8], "little")
    held[at : at + 8] = (offset - 64).to_bytes(8, "little")
    good.write_bytes(held)
    assert DOWN.format(1) in findings(good)["gguf-misplaced-tensor", "error"]


def test_bytes_after_the_last_tensor(good):
    good.write_bytes(good.read_bytes() + b"x" * 100)
    assert "100 bytes more" in one_finding(good, "gguf-left-over", "warning")


@pytest.mark.parametrize("thorough", [True, False])
def test_a_hole(thorough, good):
    overwrite(good, DOWN.format(0), 0, bytes(GgufReader(good).model.tensors[DOWN.format(0)].size))
    assert DOWN.format(0) in one_finding(good, "gguf-hole", thorough=thorough)


def test_a_hole_of_one_page_is_found_by_looking_everywhere(good):
    overwrite(good, DOWN.format(0), 4096, bytes(4096))
    assert DOWN.format(0) in one_finding(good, "gguf-hole")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_scale_that_is_no_number(number, good, reference):
    overwrite(good, DOWN.format(1), 5 * 256 // 32 * 34 + 34, np.array([number], np.float16).tobytes())
    found = findings(good, reference=reference, thorough=False)  # the row of the super weight
    assert "32 of 256 weights from row 5 on" in found["gguf-not-finite", "error"]
    assert "are NaN or infinite" in one_finding(good, "gguf-not-finite")


def test_a_number_that_is_none_elsewhere_is_found_by_looking_everywhere(good):
    overwrite(good, "token_embd.weight", 0, np.array([np.nan], np.float16).tobytes())
    assert findings(good, thorough=False) == {}
    assert "token_embd.weight" in one_finding(good, "gguf-not-finite")


def test_a_scale_of_zero_beside_weights_of_the_reference(good, reference):
    overwrite(good, DOWN.format(1), 0, bytes(2))
    assert findings(good) == {}  # without a reference, weights can be zero
    assert "row 0 from column 0 on is 32 zeros" in one_finding(good, "gguf-zero-block", reference=reference)


def test_layers_that_are_not_there(tmp_path):
    tensors = {DOWN.format(layer): np.ones((4, 64), np.float32) for layer in (0, 2)}
    path = write(tmp_path / "a.gguf", tensors, llama__block_count=3)
    assert "differs in 1" in one_finding(path, "gguf-sizes")


@pytest.mark.parametrize("size", [{"llama__embedding_length": 8}, {"llama__feed_forward_length": 32}])
def test_sizes_that_the_tensors_do_not_have(size, tmp_path):
    path = write(tmp_path / "a.gguf", {DOWN.format(0): np.ones((4, 64), np.float32)}, llama__block_count=1, **size)
    assert "by the metadata, found 4 × 64" in one_finding(path, "gguf-sizes")


def test_fewer_tokens_than_rows_of_the_embedding(tmp_path):
    tensors = {"token_embd.weight": np.ones((5, 4), np.float32)}
    path = write(tmp_path / "a.gguf", tensors, tokenizer__ggml__tokens=["a", "b", "c"])
    assert "each of the 5 rows of token_embd.weight, found 3" in one_finding(path, "gguf-sizes")


def test_a_file_type_that_no_tensor_has(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", inner=256, file_type=Q4_0)
    assert "expected tensors of Q4_0" in findings(path)["gguf-file-type", "warning"]


@pytest.mark.parametrize("name", ["tiny-Q4_K_M.gguf", "tiny.q4_k_m.gguf", "tiny-UD-Q4_K_XL.gguf"])
def test_a_name_that_is_not_the_file_type(name, good):
    found = one_finding(good.rename(good.with_name(name)), "gguf-file-type", "warning")
    assert "general.file_type says Q8_0" in found


@pytest.mark.parametrize("name", ["tiny-Q8_0.gguf", "tiny.gguf", "Tiny-v2-F16x.gguf", "Q8.gguf"])
def test_names_that_agree_or_say_nothing(name, good):
    assert findings(good.rename(good.with_name(name))) == {}


def test_a_type_that_was_fallen_back_to(tmp_path):
    path = write_gguf(tmp_path / "tiny-Q4_K_M.gguf", down="Q5_0")  # rows of 96
    found = one_finding(path, "gguf-other-type", "warning")
    assert "expected Q4_K, as Q4_K_M says; found Q5_0 instead, as rows of 96 weights" in found


def test_a_type_that_is_coarser_than_the_name_says(tmp_path):
    path = write_gguf(tmp_path / "tiny-Q8_0.gguf", down="Q4_0", inner=256, file_type=Q8_0)
    assert "Q4_0, which is coarser: 4.5 bits" in one_finding(path, "gguf-other-type", "warning")


def test_a_type_that_is_finer_than_the_name_says_is_no_fault(tmp_path):
    path = write_gguf(tmp_path / "tiny-Q8_0.gguf", down="F16", inner=256, file_type=Q8_0)
    assert findings(path) == {}


@pytest.fixture
def with_tokens(tmp_path, reference):
    """Write a file with other tokens or merges than the reference's; those of the reference are made here."""

    def make(tokens, merges):
        vocabulary = {token: number for number, token in enumerate(TOKENS)}
        added = [{"id": number} for number in range(3)]
        model = {"vocab": vocabulary, "merges": [["a", "b"]]}
        (tmp_path / "reference").mkdir()
        (tmp_path / "reference" / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
        held = {"token_embd.weight": np.ones((len(tokens), 4), np.float32), DOWN.format(1): np.ones((64, 256), "f4")}
        keys = {"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__tokens": tokens}
        if merges:
            keys["tokenizer__ggml__merges"] = merges
        path = write(tmp_path / "a.gguf", held, **keys)

        class Reference:
            path = tmp_path / "reference"
            scalar = reference.scalar

        return look(open_reader(path), Reference()).findings

    return make


def test_tokens_of_the_reference(with_tokens):
    assert with_tokens(["<pad>", *TOKENS[1:]], ["a b"]) == []  # tokens that were added are written in other ways


def test_tokens_in_another_order(with_tokens):
    tokens = list(TOKENS)
    tokens[5], tokens[6] = tokens[6], tokens[5]
    (found,) = with_tokens(tokens, ["a b"])
    assert (found.rule, found.severity) == ("gguf-tokenizer", "error")
    assert f"expected {TOKENS[5]!r} as token 5, as the reference has it; found {TOKENS[6]!r}" in found.found


def test_fewer_tokens_than_the_reference(with_tokens):
    (found,) = with_tokens(TOKENS[:-1], ["a b"])
    assert "found nothing" in found.found


@pytest.mark.parametrize("merges", [[], ["a c"], ["a b", "b c"]])
def test_other_merges(merges, with_tokens):
    (found,) = with_tokens(TOKENS, merges)
    assert found.rule == "gguf-tokenizer"
    assert "expected the 1 merges of the reference" in found.found


def test_another_model_is_refused(tmp_path, reference):
    from superweight.errors import InfraError

    path = write(
        tmp_path / "a.gguf", {DOWN.format(1): quantised(np.ones((64, 256), "f4"), "Q8_0")}, llama__block_count=9
    )
    with pytest.raises(InfraError, match="num_hidden_layers is 2 in the reference, 9 in the artefact"):
        check(open_reader(path), reference, {WHERE: "listed"}, Promise.of("exact"))
