"""Tasks and texts that were damaged: they are told of, or the figures are those of what the files hold."""

import json
import math
import os
import shutil
import unicodedata

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzz.damage import budget, byte_damage, json_damage, line_damage, tree_damage
from fuzz.outcome import inflict, outcome, restore
from superweight.cards import CorpusCard, TaskCard
from superweight.checkpoint import Cache
from superweight.evaluate import ResidentModel, corpus_text, corpus_tokens, perplexity
from superweight.forward.scorer import Scorer
from support.asking import AskedTask
from support.tiny import tiny, tiny_text

WORDS = [f"w{token - 4}" for token in tiny_text(400, seed=3).tolist()]
ROWS = [{"text": " ".join(WORDS[i : i + 5]), "choices": ["w1", f"w{i}", "w39"], "label": i % 3} for i in range(2, 26)]
TASK = """\
task: successor
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {directory}/rows.json}}}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""
NAMES = ["rows.json", "successor.yaml"]
DAMAGES = st.one_of(
    byte_damage(NAMES),
    json_damage(["rows.json"]),
    json_damage(["rows.json"]),
    line_damage(["successor.yaml"]),
    line_damage(["successor.yaml"]),
    tree_damage(NAMES),
)
WINDOW = 16


@pytest.fixture(scope="module")
def loaded():
    return tiny("llama", []).loaded


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def afresh(directory, files):
    """The directory again, undamaged, all its files as old as each other: as a checkout or an archive makes them."""
    shutil.rmtree(directory, ignore_errors=True)
    restore(directory, files)


def as_old_as_each_other(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("examples", [30, pytest.param(2_000, marks=pytest.mark.slow)])
def test_damaged_tasks_are_told_of_or_asked_as_the_files_say(loaded, tmp_path, examples):
    directory, cache, known = tmp_path / "files", Cache(tmp_path / "cache"), {}
    model = ResidentModel(Scorer(loaded))
    files = {"rows.json": json.dumps(ROWS).encode(), "successor.yaml": TASK.format(directory=directory).encode()}
    card = TaskCard(id="successor", task=str(directory / "successor.yaml"))

    @budget(examples)
    @given(st.lists(DAMAGES, min_size=1, max_size=2))
    def fuzz(damages):
        afresh(directory, files)
        inflict(damages, directory)
        as_old_as_each_other(directory)
        found = outcome(
            lambda: AskedTask(loaded, card, cache, model=model, progress=False).measure(),
            ["rows.json", "'successor'", "successor.yaml"],
        )
        if found is not None:
            check(found, directory, loaded, known)

    fuzz()


def check(found, directory, loaded, known):
    """The items are the rows, less those that nobody could answer, scored as plain calls of the model do."""
    settings = yaml.safe_load((directory / "successor.yaml").read_text(encoding="utf-8"))
    original = yaml.safe_load(TASK.format(directory=directory))
    metric = settings["metric_list"][0]
    assert found.higher_is_better is metric.get("higher_is_better", True)
    assert found.task == settings["task"]
    assert not [one for one in found.task if unicodedata.category(one) in ("Cc", "Cf")]
    for name in ("dataset_path", "dataset_kwargs", "validation_split"):
        if settings.get(name) != original[name]:
            return
    rows = json.loads((directory / "rows.json").read_text(encoding="utf-8"), object_pairs_hook=once)
    assert found.n == found.planned == len(found.items)
    assert found.n + len(found.left_out) == len(rows)
    telling = ("doc_to_text", "doc_to_choice", "doc_to_target", "output_type", "metric_list")
    if any(settings.get(name) != original[name] for name in telling) or set(settings) - set(original):
        return
    assert [row["doc_id"] for row in found.left_out] == [n for n, row in enumerate(rows) if not is_sound(row)]
    right = []
    for item in found.items:
        row = rows[item["doc_id"]]
        scores = [likelihood(loaded, row["text"], str(choice), known) for choice in row["choices"]]
        assert item["loglikelihoods"] == pytest.approx(scores, abs=1e-3)
        best = max(range(len(scores)), key=item["loglikelihoods"].__getitem__)
        assert item["acc"] == float(best == row["label"])
        right.append(item["acc"])
    assert found.metrics["acc"] == pytest.approx(sum(right) / len(right))


def once(pairs):
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"one of two values was taken of a key in {names}"
    return dict(pairs)


def is_sound(row):
    """Whether a row has a question, choices, and which of them is right."""
    choices, label = row.get("choices"), row.get("label")
    if not isinstance(row.get("text"), str) or not isinstance(choices, list):
        return False
    filled = [one for one in choices if isinstance(one, str) and one.strip()]
    return bool(choices) and len(filled) == len(choices) and type(label) is int and 0 <= label < len(choices)


@torch.no_grad()
def likelihood(loaded, text, choice, known):
    """Log-likelihood of a choice after a question, nats, by one call of the model."""
    if (text, choice) not in known:
        context = loaded.tokenizer(text)["input_ids"]
        whole = loaded.tokenizer(f"{text} {choice}")["input_ids"]
        logits = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        known[text, choice] = sum(float(logits[i - 1, whole[i]]) for i in range(len(context), len(whole)))
    return known[text, choice]


@pytest.mark.parametrize("examples", [30, pytest.param(6_000, marks=pytest.mark.slow)])
def test_damaged_texts_are_told_of_or_measured_as_they_are(loaded, tmp_path, examples):
    directory, cache, scorer = tmp_path / "files", Cache(tmp_path / "cache"), Scorer(loaded)
    files = {"chain.txt": " ".join(WORDS[:120]).encode()}
    source = {"kind": "file", "path": str(directory / "chain.txt")}
    card = CorpusCard.model_validate({"id": "chain", "title": "Chain", "source": source})
    damages = st.lists(
        st.one_of(*[kind(["chain.txt"]) for kind in (byte_damage, line_damage, tree_damage)]), min_size=1, max_size=3
    )

    @budget(examples)
    @given(damages)
    def fuzz(damages):
        afresh(directory, files)
        inflict(damages, directory)

        def measure():
            tokens = corpus_tokens(loaded, card, cache)
            return corpus_text(card, cache), perplexity(
                loaded, tokens, window=WINDOW, scorer=scorer, name="corpus 'chain'"
            )

        measured = outcome(measure, ["chain.txt", "'chain'"])
        if measured is not None:
            text, figure = measured
            content = (directory / "chain.txt").read_bytes().decode("utf-8")
            assert text == content.replace("\r\n", "\n").replace("\r", "\n")
            assert "\0" not in content
            assert figure.value == pytest.approx(plain_perplexity(loaded, content), rel=1e-4)

    fuzz()


@torch.no_grad()
def plain_perplexity(loaded, text):
    ids = torch.tensor(loaded.tokenizer(text, verbose=False)["input_ids"])
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    logits = loaded.model(windows).logits.double().log_softmax(-1)
    nll = -logits[:, :-1].gather(-1, windows[:, 1:, None])
    return math.exp(float(nll.mean()))
