"""Where running text comes from, and what is said when it cannot be had."""

import os

import pytest

from superweight.cards.corpus import CorpusCard
from superweight.checkpoint import Cache
from superweight.errors import InfraError
from superweight.evaluate import corpus_text, corpus_tokens
from superweight.evaluate.hub_rows import hub_errors


def corpus(**source):
    return CorpusCard.model_validate({"id": "some", "title": "Some", "source": source})


def test_a_text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Zwölf Boxkämpfer\n", encoding="utf-8")
    assert corpus_text(corpus(kind="file", path=str(path)), Cache(tmp_path)) == "Zwölf Boxkämpfer\n"


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InfraError, match=r"expected a UTF-8 text file at .*missing\.txt") as caught:
        corpus_text(corpus(kind="file", path=str(tmp_path / "missing.txt")), Cache(tmp_path))
    assert caught.value.reason == "not-found"
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InfraError, match="not UTF-8") as caught:
        corpus_text(corpus(kind="file", path=str(tmp_path / "bytes.txt")), Cache(tmp_path))
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(("content", "told"), [(b"", "no text"), (b" \n", "no text"), (b"a" + bytes(9), "zero bytes")])
def test_what_is_left_of_a_file_whose_writing_was_cut_short(tmp_path, content, told):
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(InfraError, match=rf"corpus 'some': .*text\.txt holds {told}") as caught:
        corpus_text(corpus(kind="file", path=str(tmp_path / "text.txt")), Cache(tmp_path))
    assert caught.value.reason == "corrupt"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InfraError, match="is a pipe or a device"):
        corpus_text(corpus(kind="file", path=str(tmp_path / "pipe")), Cache(tmp_path))


def test_a_row_without_text_is_told_of(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": null}\n')
    source = {"kind": "hub", "repository": "json", "split": "test", "data_files": str(tmp_path / "rows.jsonl")}
    with pytest.raises(InfraError, match="row 1 of json has 'None' in column 'text'; expected text"):
        corpus_text(corpus(**source), Cache(tmp_path / "cache"))


def test_rows_of_a_data_set_are_joined(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "three"}\n')
    source = {"kind": "hub", "repository": "json", "split": "test", "data_files": str(tmp_path / "rows.jsonl")}
    assert corpus_text(corpus(**source), Cache(tmp_path / "cache")) == "one\n\n\n\nthree"
    assert corpus_text(corpus(**source, join=" ", rows=2), Cache(tmp_path / "cache")) == "one "
    with pytest.raises(InfraError, match="expected data_files, the file that 'json' is to read"):
        corpus_text(corpus(kind="hub", repository="json", split="test"), Cache(tmp_path / "cache"))
    with pytest.raises(InfraError, match=r"expected a column 'body'.*found text"):
        corpus_text(corpus(**source, column="body"), Cache(tmp_path / "cache"))


def test_the_hub_out_of_reach(tmp_path):
    with pytest.raises(InfraError, match="HF_HUB_OFFLINE") as caught:
        corpus_text(corpus(kind="hub", repository="Salesforce/wikitext", split="test"), Cache(tmp_path))
    assert caught.value.reason == "offline"


@pytest.mark.parametrize("bos", [False, True])
def test_the_text_is_tokenised_once_with_the_tokenizers_special_tokens(make_loaded, tmp_path, bos):
    (tmp_path / "text.txt").write_text("The quick brown fox. " * 50)
    card = corpus(kind="file", path=str(tmp_path / "text.txt"))
    tokens = corpus_tokens(make_loaded("llama", bos=bos), card, Cache(tmp_path))
    assert tokens.dim() == 1
    assert [token for token in tokens.tolist() if token == 1] == [1] * bos
    assert (tokens[0] == 1) == bos


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("401 Client Error: Unauthorized for url"), "unauthorised"),
        (RuntimeError("the server answered with status code 403"), "unauthorised"),
        (FileNotFoundError("/runs/401/rows.json of 403 rows"), "not-found"),
    ],
)
def test_a_number_in_a_path_is_no_answer_of_the_hub(tmp_path, error, reason):
    with pytest.raises(InfraError) as caught, hub_errors("rows", Cache(tmp_path)):
        raise error
    assert caught.value.reason == reason
