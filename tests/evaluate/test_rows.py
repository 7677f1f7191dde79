"""Rows that cannot be asked are named and left out; the rest of the task is decided as lm-eval decides it."""

import json

import pytest
import yaml

from superweight.cards.task import TaskCard
from superweight.checkpoint import Cache
from superweight.checkpoint.quiet import quiet
from superweight.errors import CardError, InfraError
from superweight.evaluate import load_task
from support.asking import AskedTask

ROWS = 40
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{label}}",
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
TARGET = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{choices[0]}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def rows():
    return [
        {"text": f"The dog {i}", "choices": [f"is {i}", "is lazy", "is quick"], "label": i % 3} for i in range(ROWS)
    ]


@pytest.fixture
def prepare(tmp_path, make_loaded, monkeypatch):
    """`prepare(settings, changed rows by number)`: the task on a tiny model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    def make(settings, changes=None, *, loaded=None, every=None):
        data = rows()
        for number in range(ROWS) if every is not None else ():
            data[number].update(every)
        for number, change in (changes or {}).items():
            data[number].update(change)
        file = tmp_path / f"rows-{abs(hash(json.dumps(data)))}.json"
        file.write_text(json.dumps(data))
        given = {
            "task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test", "metadata": {"version": 1},
        }  # fmt: skip
        (tmp_path / "t.yaml").write_text(yaml.safe_dump(given | settings))
        card = TaskCard(id="t", task=str(tmp_path / "t.yaml"))
        return AskedTask(loaded or make_loaded("llama", bos=True), card, Cache(tmp_path / "cache"))

    return make


@pytest.mark.parametrize(
    ("settings", "change", "reason"),
    [
        (CHOICE, {"choices": []}, "makes no request (no choices)"),
        (CHOICE, {"label": -1}, "has the label"),
        (CHOICE, {"label": None}, "has nothing where its text is made of it (label)"),
        (CHOICE, {"choices": ["is 1", None, "is quick"]}, "has the choice 'None', which is no text"),
        (CHOICE, {"label": -100}, "has the label"),
        (CHOICE, {"label": 7}, "has the label 7, which is none of its 3 choices"),
        (CHOICE | {"doc_to_target": "label"}, {"label": -1}, "has the label -1, which is none of its 3 choices"),
        (
            CHOICE | {"doc_to_target": "{{'is lazy' if label < 5 else 'is blue'}}"},
            {"label": 9},
            "has the label 'is blue'",
        ),
        (CHOICE | {"target_delimiter": ""}, {"choices": ["", "is lazy", "is quick"]}, "has the answer ''"),
        (TARGET | {"target_delimiter": ""}, {"choices": ["", "b", "c"]}, "has the answer ''"),
        (CHOICE, {"choices": ["lazy " * 200, "is lazy", "is quick"]}, "and the model can be fed 128"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_and_the_rest_decided(prepare, settings, change, reason):
    prepared = prepare(settings, {5: change})
    (left_out,) = prepared.left_out
    assert left_out.doc_id == 5
    assert reason in left_out.reason
    assert "The dog 5" in left_out.text
    found = prepared.measure()
    assert found.n == found.planned == prepared.planned == ROWS - 1
    assert 5 not in [item["doc_id"] for item in found.items]
    assert found.left_out == [left_out._asdict()]
    whole = prepare(settings).measure()
    sound = [item for item in whole.items if item["doc_id"] != 5]
    assert [item["acc"] for item in found.items] == [item["acc"] for item in sound]
    assert [item["loglikelihoods"] for item in found.items] == [
        pytest.approx(item["loglikelihoods"], abs=1e-4) for item in sound
    ]


def test_what_is_left_out_is_part_of_what_the_figure_is_of(prepare):
    assert len({prepare(CHOICE, change).content for change in ({}, {5: {"label": 7}}, {6: {"label": 7}})}) == 3


@pytest.mark.parametrize(
    "change", [{"label": -1}, {"label": -100}, {"label": 7}, {"choices": []}, {"choices": ["", "", ""]}]
)
def test_a_task_of_bad_rows_is_refused_with_the_first_of_them(prepare, change):
    settings = CHOICE | {"target_delimiter": ""}
    with pytest.raises(InfraError) as caught:
        prepare(settings, every=change).measure()
    assert caught.value.reason == "bad-rows"
    assert "task 't'" in str(caught.value)


def test_one_row_in_twenty_is_the_most(prepare):
    bad = {"label": 7}
    assert prepare(CHOICE, dict.fromkeys((1, 2), bad)).planned == ROWS - 2
    with pytest.raises(InfraError, match="3 of 40 rows cannot be asked, more than one in 20: row 1 has the label 7"):
        prepare(CHOICE, dict.fromkeys((1, 2, 3), bad))


def test_labels_are_lm_evals_own(prepare, make_loaded):
    """Where lm-eval scores a row as wrong whatever is answered, the row is left out; nowhere else."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    for settings, label in ((CHOICE, 2), (CHOICE | {"doc_to_target": "{{choices[label]}}"}, 2), (CHOICE, 0)):
        loaded = make_loaded("llama", bos=True)
        prepared = prepare(settings, {5: {"label": label}}, loaded=loaded)
        assert prepared.left_out == ()
        definition = load_task(prepared.card, Cache()).definition
        definition.set_fewshot_seed(1234)
        with quiet():
            lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)
            found = evaluate(lm, {"t": definition}, bootstrap_iters=0)["results"]["t"]["acc,none"]
        assert prepared.measure().metrics["acc"] == found


def test_several_right_answers(prepare):
    settings = CHOICE | {"doc_to_target": "labels"}
    every = {"labels": [0, 2]}
    assert prepare(settings, every=every).planned == ROWS
    (left_out,) = prepare(settings, {5: {"labels": [0, 3]}}, every=every).left_out
    assert left_out.reason == "has the label 3, which is none of its 3 choices"


def test_an_empty_question_without_bos_and_eos(prepare, make_loaded):
    loaded = make_loaded("llama", bos=False)
    loaded.tokenizer.bos_token = loaded.tokenizer.eos_token = None
    (left_out,) = prepare(CHOICE, {5: {"text": ""}}, loaded=loaded).left_out
    assert left_out.reason.startswith("has an empty question, and the tokenizer knows neither a BOS nor an EOS token")


def test_prompts_that_are_cut_short_are_counted(prepare):
    prepared = prepare(CHOICE, {5: {"text": "lazy dog " * 100}, 6: {"text": "quick fox " * 100}})
    assert prepared.left_out == ()
    assert prepared.warnings == ("6 prompts lost their beginning: the model is fed 128 tokens at most",)
    assert prepared.measure().warnings == list(prepared.warnings)


def test_templates_that_fail_are_told(prepare):
    with pytest.raises(InfraError, match="task 't': none of its rows can be asked, and lm-eval fails on row 0"):
        prepare(CHOICE | {"doc_to_choice": "{{text / 2}}"})
    with pytest.raises(InfraError, match="task 't': lm-eval cannot make requests of its rows") as caught:
        prepare(CHOICE | {"doc_to_choice": "{{[text, text, text ~ 1 / (label - 1)]}}"})
    assert caught.value.reason == "bad-rows"


@pytest.mark.parametrize("change", [{"choices": []}, {"label": 7}, {"label": -1}, {"choices": ["", "b", "c"]}])
def test_the_first_row_is_a_row_like_others(prepare, change):
    prepared = prepare(CHOICE | {"doc_to_target": "label", "target_delimiter": ""}, {0: change})
    assert [one.doc_id for one in prepared.left_out] == [0]
    assert prepared.measure().n == ROWS - 1


def test_what_lm_eval_warns_of_is_kept(prepare, tmp_path):
    warning = {"process_docs": "!function warn.process"}
    (tmp_path / "warn.py").write_text(
        "import logging\n\ndef process(rows):\n"
        "    logging.getLogger('lm_eval.mine').warning('odd rows\\nand more')\n    return rows\n"
    )
    text = yaml.safe_dump(warning).replace("'!function warn.process'", "!function warn.process")
    prepare(CHOICE)
    path = tmp_path / "t.yaml"
    path.write_text(path.read_text() + text)
    found = load_task(TaskCard(id="t", task=str(path)), Cache(tmp_path / "cache"))
    assert "lm-eval warns: odd rows" in found.warnings


def test_what_cannot_be_asked_summed_up_or_scored_is_told_with_the_task(prepare, make_loaded, tmp_path):
    asked = CHOICE | {"output_type": "generate_until"}
    with pytest.raises(InfraError, match="task 't': lm-eval cannot ask a model for 'generate_until'"):
        prepare(asked).measure()  # 256 tokens of a model that takes 128
    asked["generation_kwargs"] = {"max_gen_toks": 2}
    with pytest.raises(InfraError, match="task 't': metric 'acc': its aggregation makes no number of what an item has"):
        prepare(asked).measure()
    (tmp_path / "code.py").write_text("def score(doc, results):\n    raise KeyError('gold')\n")
    prepare(CHOICE)
    with (tmp_path / "t.yaml").open("a") as file:
        file.write("process_results: !function code.score\n")
    card = TaskCard(id="t", task=str(tmp_path / "t.yaml"))
    task = AskedTask(make_loaded("llama", bos=True), card, Cache(tmp_path / "cache"))
    with pytest.raises(
        InfraError, match=r"task 't': lm-eval cannot score what the model answers to row \d+ \(KeyError"
    ):
        task.measure()


def test_a_row_without_a_question_is_left_out_and_not_asked_with_the_word_none(prepare):
    left_out = prepare(CHOICE, {5: {"text": None}}).left_out
    assert [(one.doc_id, one.reason) for one in left_out] == [(5, "has nothing where its text is made of it (text)")]
    guarded = CHOICE | {"doc_to_text": "{% if text %}{{text}}{% endif %}Go on"}
    assert prepare(guarded, {5: {"text": None}}).left_out == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("group: g\ntask: [a, b]\n", "a group of tasks"),
        ("- a\n- b\n", "got list"),
        ("", "got NoneType"),
        ("output_type: multiple_choice\n", "no task"),
        ("task: [", "expected the node content"),
        ("task: t\ninclude: nowhere.yaml\n", "nowhere.yaml"),
        ("task: t\nprocess_results: !function nowhere.f\n", "nowhere"),
        ("task: t\nprocess_results: !function bad.f\n", "boom"),
        ("task: t\nno_such_key: 1\n", "no_such_key"),
        ("task: \x00\n", "#x0000: special characters are not allowed"),
    ],
)
def test_a_definition_that_is_none_is_one_sentence_with_the_file(tmp_path, text, told):
    (tmp_path / "t.yaml").write_text(text)
    (tmp_path / "bad.py").write_text("raise RuntimeError('boom')")
    with pytest.raises(CardError, match=told) as caught:
        load_task(TaskCard(id="t", task=str(tmp_path / "t.yaml")), Cache(tmp_path / "cache"))
    assert "t.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
