"""Cards that gate a tiny model with planted super weights: a corpus, a task and a tier of its own language."""

import json

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
RECIPES = (
    "baseline",
    "no-op",
    "prune-super-weights",
    "rtn-int4-g64",
    "clip-restore-int8-channel",
    "clip-restore-int4-g64",
)
TIER = """
id = "smoke"
title = "tiny"
models = {models}
recipes = {recipes}
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


def write_data_cards(cards):
    """Write a corpus, a task and a gate card into a directory of cards, and make the other folders that tests fill."""
    from support.tiny import tiny_successors, tiny_text

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


def write_model_cards(cards, names, path, value, recipes=RECIPES):
    """Write a model card of each name, all of the same weights, and the smoke tier that gates them."""
    for name in names:
        (cards / "models" / f"{name}.toml").write_text(MODEL.format(name=name, path=path, value=value))
    tier = TIER.format(models=json.dumps(list(names)), recipes=json.dumps(list(recipes)))
    (cards / "tiers" / "smoke.toml").write_text(tier)
