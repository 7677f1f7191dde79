"""What YAML allows and nobody means by a task."""

import os

import pytest

from superweight.cards.task import TaskCard
from superweight.checkpoint import Cache
from superweight.errors import CardError
from superweight.evaluate import load_task
from superweight.evaluate.yaml_text import check_yaml

TASK = """\
task: t
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: [a, b]
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def load(tmp_path):
    """`load(old, new)`: the task, a part of its YAML replaced."""

    def make(old="", new=""):
        (tmp_path / "r.json").write_text('[{"text": "x", "label": 0}]')
        text = TASK.replace("ROWS", str(tmp_path / "r.json"))
        assert old in text
        (tmp_path / "t.yaml").write_text(text.replace(old, new, 1) if old else text + new)
        return load_task(TaskCard(id="t", task=str(tmp_path / "t.yaml")), Cache(tmp_path / "cache"))

    return make


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "doc_to_text: other\n", r"t\.yaml: line 13: the key 'doc_to_text' is given twice"),
        ("test: ROWS", "", None),
        (
            "aggregation: mean",
            "aggregation: mean\n    aggregation: max",
            r"line 12: the key 'aggregation' is given twice",
        ),
        ("task: t", "task: t\u202e", r"line 1: holds U\+202E RIGHT-TO-LEFT OVERRIDE"),
        ("task: t", 'task: "t\\e[31m"', r"line 1: holds U\+001B"),
        ("higher_is_better: true", 'higher_is_better: "no"', r"higher_is_better: expected true or false, found 'no'"),
        ("higher_is_better: true", "higher_is_better: 1", r"higher_is_better: expected true or false, found 1"),
        ("aggregation: mean", "aggregation: average", "acc: aggregation: expected one of lm-eval's"),
        ("metric: acc", "metric:", "None: aggregation|metric: 'acc' is none of the task's"),
        ("", "  - metric: acc\n    aggregation: mean\n    higher_is_better: false\n", "'acc' is listed twice"),
        ("dataset_kwargs: {", "metadata: {", "dataset_kwargs: expected data_files, the files that 'json' is to read"),
        (
            "",
            "process_results: code.f\n",
            "process_results: expected a function, as in '!function code.f', found 'code.f'",
        ),
        ("dataset_kwargs: {", "dataset_kwargs: 7 #", "dataset_kwargs: expected keys and values, found '7'"),
        ("task: t", "task: " + "[" * 3000, "recursion"),
    ],
)
def test_what_nobody_means_is_told_with_file_and_line(load, old, new, told):
    if told is None:
        old, told = "test_split: test", "t\\.yaml"
        new = "test_split: validation"
    with pytest.raises(CardError, match=told) as caught:
        load(old, new)
    assert "t.yaml" in str(caught.value) or "'t'" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_sound_definition_and_what_it_includes(load, tmp_path):
    (tmp_path / "base.yaml").write_text("num_fewshot: 0\ndoc_to_text: other\n")
    assert load("", "include: base.yaml\n").definition.config.doc_to_text == "{{text}}"
    (tmp_path / "base.yaml").write_text("num_fewshot: 0\nnum_fewshot: 1\n")
    with pytest.raises(CardError, match=r"base\.yaml: line 2: the key 'num_fewshot' is given twice"):
        load("", "include: base.yaml\n")


def test_pipes_are_not_waited_for(load, tmp_path):
    for name in ("base.yaml", "code.py"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(CardError, match=r"base\.yaml, which is included by .*t\.yaml: cannot be read \(is a pipe"):
        load("", "include: [base.yaml]\n")
    with pytest.raises(CardError, match=r"code\.py is no file of Python"):
        load("", "process_results: !function code.f\n")


def test_anchors_may_be_used_more_than_once_and_within_themselves(tmp_path):
    (tmp_path / "t.yaml").write_text("a: &x {b: 1}\nc: *x\nd: &y [*y]\n<<: *x\n")
    check_yaml(tmp_path / "t.yaml")
