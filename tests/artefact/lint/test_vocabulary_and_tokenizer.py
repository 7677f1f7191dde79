"""Tokenizers that are the reference's in other bytes, and such as are another's in nearly the same ones."""

import json

import pytest
import torch

from superweight.artefact.tokenizer_files import TokenizerFiles
from support.artefacts import packed


@pytest.fixture
def artefact(reference, tmp_path):
    return packed(reference, tmp_path / "w4")


def edit(path, name, change):
    file = path / name
    said = json.loads(file.read_text()) if file.is_file() else {}
    change(said)
    file.write_text(json.dumps(said))


def test_other_bytes_of_the_same_tokenizer(look, artefact):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = artefact / name
        file.write_text(json.dumps(json.loads(file.read_text()), indent=7, sort_keys=True))
    assert look(artefact) == {}


def test_merges_as_texts_or_as_pairs(tmp_path):
    for name, merges in (("one", ["a b", "ab c"]), ("other", [["a", "b"], ["ab", "c"]])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}, "merges": merges}}))
    assert TokenizerFiles(tmp_path / "one").merges == TokenizerFiles(tmp_path / "other").merges


def test_no_tokenizer_is_no_other_one(look, artefact):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (artefact / name).unlink()
    assert look(artefact) == {}


def swap_ids(said):
    words = said["model"]["vocab"]
    one, other = sorted(words, key=words.get)[10:12]
    words[one], words[other] = words[other], words[one]


TOKENIZERS = {
    "ids of two tokens": ("tokenizer.json", swap_ids),
    "a token more": (
        "tokenizer.json",
        lambda said: said["added_tokens"].append({"id": 43, "content": "<|more|>", "special": True}),
    ),
    "a normalizer": ("tokenizer.json", lambda said: said.update(normalizer={"type": "Lowercase"})),
    "another split": (
        "tokenizer.json",
        lambda said: said.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
    ),
    "another beginning": ("tokenizer.json", lambda said: said.update(post_processor={"type": "ByteLevel"})),
    "truncation left by a calibration": (
        "tokenizer.json",
        lambda said: said.update(
            truncation={"max_length": 512, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
        ),
    ),
    "padding left by a calibration": ("tokenizer.json", lambda said: said.update(padding={"pad_id": 0})),
    "another end": ("tokenizer_config.json", lambda said: said.update(eos_token="<unk>")),
    "no beginning": ("tokenizer_config.json", lambda said: said.update(bos_token=None)),
}


@pytest.mark.parametrize("what", TOKENIZERS)
def test_another_tokenizer(what, look, artefact):
    name, change = TOKENIZERS[what]
    edit(artefact, name, change)
    found = look(artefact)
    assert set(found) == {"tokenizer-differs"}
    assert found["tokenizer-differs"][0].startswith(name)


def test_special_tokens_with_and_without_settings_of_their_own(look, artefact):
    def wrap(said):
        said["eos_token"] = {"content": said["eos_token"], "lstrip": False, "special": True}

    edit(artefact, "tokenizer_config.json", wrap)
    assert look(artefact) == {}


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt"])
def test_files_of_a_tokenizer_without_a_whole_one(name, reference, look, artefact, tmp_path):
    from superweight.artefact.lint import Subject, lint
    from superweight.artefact.reading import open_reader

    other = packed(reference, tmp_path / "reference")
    for path in (artefact, other):
        (path / "tokenizer.json").unlink()
        (path / name).write_bytes(b"same")
    assert lint(Subject(open_reader(artefact), open_reader(other))) == ([], {})
    (artefact / name).write_bytes(b"else")
    assert [one.rule for one in lint(Subject(open_reader(artefact), open_reader(other)))[0]] == ["tokenizer-differs"]


def test_another_chat_template_is_a_hint(look, artefact):
    (artefact / "chat_template.jinja").write_text("{{ messages }}")
    assert set(look(artefact)) == {"chat-template-differs"}


def test_a_chat_template_is_the_same_in_a_file_of_its_own(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "chat_template.jinja").write_text("{{ messages }}\n")
    edit(tmp_path / "other", "tokenizer_config.json", lambda said: said.update(chat_template="{{ messages }}"))
    assert TokenizerFiles(tmp_path / "one").chat_template == TokenizerFiles(tmp_path / "other").chat_template


def test_another_padding_token_is_a_hint(look, artefact):
    edit(artefact, "tokenizer_config.json", lambda said: said.update(pad_token="</s>"))
    assert set(look(artefact)) == {"chat-template-differs"}


def resized(rows, *, config=None, names=("model.embed_tokens.weight", "lm_head.weight")):
    def change(tensors, said):
        for name in names:
            tensors[name] = torch.ones(rows, tensors[name].shape[1])
        said.update(config or {})

    return change


VOCABULARIES = {
    "fewer rows than the settings say": resized(40),
    "more rows than the reference": resized(64),
    "an output layer of its own size": resized(64, names=("lm_head.weight",)),
    "other settings than the reference's": resized(64, config={"vocab_size": 64}),
}


@pytest.mark.parametrize("what", VOCABULARIES)
def test_another_vocabulary(what, reference, look, tmp_path):
    assert "vocabulary-differs" in look(packed(reference, tmp_path / "w4", change=VOCABULARIES[what]))


def test_a_tokenizer_with_more_tokens_than_the_model_knows(look, artefact):
    edit(
        artefact,
        "tokenizer.json",
        lambda said: said["added_tokens"].append({"id": 99, "content": "<|more|>", "special": True}),
    )
    assert "ids up to 99" in look(artefact, alone=True)["vocabulary-differs"][0]
