"""A project that gates a tiny model with planted super weights: the repository's own suites, small cards."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = """
id = "{name}"
title = "Tiny"
[source]
kind = "directory"
path = "{path}"
[[super_weights]]
layer = 1
row = 5
column = 7
value = {value}
status = "causal"
source = "planted"
"""
TIER = """
id = "smoke"
title = "tiny"
models = {models}
recipes = ["baseline", "no-op", "prune-super-weights", "rtn-int4-g64", "clip-restore-int8-channel", "clip-restore-int4-g64"]
[[perplexity]]
corpus = "chain"
window = 64
windows = 8
[[tasks]]
task = "successor"
limit = 60
"""
TASK_YAML = """
task: successor
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {rows}}}}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""

GATE = """
id = "zero-shot"
title = "Zero-shot"
kind = "zero-shot"
margin = 0.5
why = "Sixty items of a language without meaning can tell no less."
date = "2026-01-31"
"""


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


@pytest.fixture
def project(pytester, tiny_checkpoint, monkeypatch):
    """Suites, conftest and cards in a directory of their own; `project.gate(*options)` runs them in a subprocess."""
    from support.tiny import tiny_successors, tiny_text

    root = pytester.path
    shutil.copytree(ROOT / "suites", root / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", root / "conftest.py")
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nsuperweight_cards = ["cards"]\n')
    cards = root / "cards"
    for folder in ("models", "corpora", "tasks", "tiers", "gates"):
        (cards / folder).mkdir(parents=True)
    (cards / "gates" / "zero-shot.toml").write_text(GATE)
    words = [f"w{token - 4}" for token in tiny_text(64 * 20, seed=3).tolist()]
    (cards / "corpora" / "chain.txt").write_text(" ".join(words))
    (cards / "corpora" / "chain.toml").write_text(
        'id = "chain"\ntitle = "Chain"\n[source]\nkind = "file"\npath = "chain.txt"\n'
    )
    follower = [f"w{word}" for word in tiny_successors().tolist()]
    rows = []
    for i in range(0, 600, 10):
        right = follower[int(words[i + 8][1:])]
        rows.append({"text": " ".join(words[i : i + 9]), "choices": ["w1", "w2", right], "label": 2})
    (cards / "tasks" / "rows.json").write_text(json.dumps(rows))
    (cards / "tasks" / "successor.yaml").write_text(TASK_YAML.format(rows=cards / "tasks" / "rows.json"))
    (cards / "tasks" / "successor.toml").write_text('id = "successor"\ntask = "successor.yaml"\n')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(root / "datasets"))
    made = Project(pytester, tiny_checkpoint)
    made.models("tiny")
    return made


class Project:
    def __init__(self, pytester, tiny_checkpoint):
        self.pytester, self.root = pytester, pytester.path
        self.weights, self.value = tiny_checkpoint

    def models(self, *names, path=None, value=None):
        """Write a model card of each name, all of the same weights unless `path` says otherwise, and their tier."""
        for name in names:
            text = MODEL.format(name=name, path=path or self.weights, value=self.value if value is None else value)
            (self.root / "cards" / "models" / f"{name}.toml").write_text(text)
        (self.root / "cards" / "tiers" / "smoke.toml").write_text(TIER.format(models=json.dumps(list(names))))

    def gate(self, *options):
        return self.pytester.runpytest_subprocess("suites/", "-p", "no:cacheprovider", *options, timeout=300)

    @property
    def evidence(self):
        return json.loads((self.root / "reports" / "latest" / "evidence.json").read_text())

    def cell(self, recipe, model="tiny"):
        return next(c for c in self.evidence["cells"] if (c["model"], c["recipe"]) == (model, recipe))
