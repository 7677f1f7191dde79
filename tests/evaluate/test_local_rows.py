"""Rows in files of one's own: what the file holds, every time it is read, or why not."""

import json
import os

import pytest
import yaml

from superweight.cards.corpus import CorpusCard
from superweight.cards.task import TaskCard
from superweight.checkpoint import Cache
from superweight.errors import InfraError
from superweight.evaluate import corpus_text, load_task
from superweight.evaluate.local_rows import json_rows

GOOD = '{"text": "a", "label": 1}\n\n{"text": "b\\u2028c", "more": [1]}\n'


@pytest.fixture
def rows(tmp_path):
    """`rows(content)`: what is read of a file with that content."""

    def read(content, name="rows.jsonl"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(json_rows({"test": [tmp_path / name]})["test"])

    return read


def test_one_row_a_line_or_a_list_and_what_a_row_lacks_is_none(rows):
    expected = [{"text": "a", "label": 1, "more": None}, {"text": "b\u2028c", "label": None, "more": [1]}]
    assert rows(GOOD) == expected
    assert rows("\ufeff" + GOOD.replace("\n", "\r\n")) == expected
    lines = [json.loads(line) for line in GOOD.split("\n") if line]
    assert rows(json.dumps(lines, indent=1), "rows.json") == expected


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no rows"),
        ("[]", "holds no rows"),
        ('{"a": 1}\n{"a": 2', r"line 2: Expecting"),
        ('{"a": 1}\n{"a": 2, "b": {"c": 1, "c": 2}}', r"line 2: the key 'c' is there twice"),
        ('[{"a": 1}]]', "Extra data"),
        ('[{"a": 1}, 7]', "row 1: expected an object with keys, found '7'"),
        ('[{"a": 1}, {}]', "row 1: expected an object with keys"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "1e999 is no number"),
        ('{"a": 1}\n{"a": "1"}', "the same type under each key"),
        ('{"a": 1}\n{"a": 1180591620717411303424}', "the same type under each key"),
        ('{"a": "\\ud800"}', "the same type under each key"),
        (b"\xff\xfe{}", "is not UTF-8"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_not_rows_is_told_with_file_and_place(rows, content, told):
    with pytest.raises(InfraError, match=rf"rows\.jsonl: .*{told}") as caught:
        rows(content)
    assert caught.value.reason == "corrupt"
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_not_there_or_no_file(rows, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    for name in ("pipe.json", "loop.json", "nowhere.json", "."):
        with pytest.raises(InfraError, match="expected a file of rows") as caught:
            json_rows({"test": [tmp_path / name]})
        assert caught.value.reason == "not-found"


def write(path, content, *, at=1e9):
    """A file as old as all others: so a checkout, an archive or an image makes them."""
    path.write_text(content)
    os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("reader", "name", "form", "files"),
    [
        ("json", "r.json", '[{{"text": "{}"}}]', "r.json"),
        ("json", "r.json", '[{{"text": "{}"}}]', "*.json"),
        ("csv", "r.csv", "text\n{}\n", "r.csv"),
        ("text", "r.txt", "{}\n", "r.txt"),
        (".", "test.csv", "text\n{}\n", None),
    ],
)
def test_rows_that_changed_without_their_time_are_read_again(tmp_path, monkeypatch, reader, name, form, files):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "rows"
    folder.mkdir()
    path = str(folder) if reader == "." else reader
    given = {"dataset_kwargs": {"data_files": {"test": str(folder / files)}}} if files else {}
    choice = {"output_type": "multiple_choice", "doc_to_text": "{{text}}", "doc_to_choice": ["a", "b"]}
    (tmp_path / "t.yaml").write_text(
        yaml.safe_dump({"task": "t", "dataset_path": path, "test_split": "test", "doc_to_target": 0, **choice, **given})
    )
    source = {"kind": "hub", "repository": path, "split": "test"}
    source |= {"data_files": str(folder / files)} if files else {}
    corpus = CorpusCard.model_validate({"id": "c", "title": "C", "source": source})
    for word in ("one", "two"):
        write(folder / name, form.format(word))
        task = load_task(TaskCard(id="t", task=str(tmp_path / "t.yaml")), Cache(tmp_path / "cache"))
        assert [row["text"] for row in task.definition.test_docs()] == [word]
        assert corpus_text(corpus, Cache(tmp_path / "cache")) == word


def test_rows_that_no_reader_understands_are_told_of(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1 and then nothing")
    source = {"kind": "hub", "repository": "parquet", "split": "test", "data_files": str(tmp_path / "r.parquet")}
    with pytest.raises(InfraError, match=r"r\.parquet cannot be read as rows") as caught:
        corpus_text(CorpusCard.model_validate({"id": "c", "title": "C", "source": source}), Cache(tmp_path / "cache"))
    assert caught.value.reason == "corrupt"
