"""What `gate.py` needs to do the nightly gate's work by hand: lm-eval tasks on the same rows, and saved checkpoints.

    python benchmarks/gate_peer.py tasks CARDS FOLDER
    python benchmarks/gate_peer.py save RECIPE FOLDER

Each is a process of its own. The first writes `FOLDER/tasks`, `FOLDER/probe` (as many tasks on an eighth of the texts,
to choose a batch size by) and prints how many tokens of text there are to score; the second prints the seconds that
applying and saving took, without imports and loading.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MODEL, TIER = "smollm2-135m-instruct", "nightly"
PROBE_SHARE = 8
ACTIVATIONS = ("w8a8", "smoothquant", "prune-super-weights-keep-activation")  # kinds that change more than weights


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tasks = commands.add_parser("tasks")
    tasks.add_argument("cards", type=Path)
    saving = commands.add_parser("save")
    saving.add_argument("recipe")
    for command in (tasks, saving):
        command.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "tasks":
        found = write_tasks(options.cards, options.folder)
    else:
        found = save(options.recipe, options.folder)
    print(json.dumps(found))


def why_not_saved(recipes: Sequence[str]) -> list[str]:
    """Of each recipe that no plain checkpoint can hold, why."""
    from superweight.cards import load_library

    known = load_library().recipes
    said = [f"no recipe '{name}'" for name in recipes if name not in known]
    kinds = {name: known[name].method.kind for name in recipes if name in known}
    return said + [f"'{name}' changes activations" for name, kind in kinds.items() if kind in ACTIVATIONS]


def peer_name(name: str) -> str:
    """What lm-eval calls a task or corpus of ours; the plain names are those of its own definitions."""
    return f"gate_{name}"


def choice_task(name: str, definition: Path, rows: Path) -> dict[str, Any]:
    """lm-eval's own definition of a task, on rows of ours: nothing else of it changes."""
    return {"include": str(definition), "task": peer_name(name), **_local(rows), "training_split": None}


def text_task(name: str, texts: Path) -> dict[str, Any]:
    """Log-likelihood of whole documents."""
    return {
        "task": peer_name(name),
        **_local(texts),
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}],
        "metadata": {"version": 1.0},
    }


def _local(rows: Path) -> dict[str, Any]:
    kwargs = {"data_files": {"validation": str(rows)}}
    splits = {"validation_split": "validation", "test_split": None}
    return {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs, **splits}


def document(tokenizer: Any, tokens: Sequence[int]) -> str:
    """A window's text without its first token, which is never predicted; where tokens of a text that begins or ends
    in the middle of a word come out differently, no more of them than there were."""
    wanted, end = len(tokens) - 1, len(tokens)
    while True:
        text: str = tokenizer.decode(tokens[1:end], clean_up_tokenization_spaces=False)
        if len(tokenizer.encode(text, add_special_tokens=False)) <= wanted:
            return text
        end -= 1


def write_tasks(cards: Path, folder: Path) -> dict[str, Any]:
    """Task definitions and rows of everything that the tier measures."""
    from superweight.cards import load_library
    from superweight.checkpoint import Cache
    from superweight.evaluate.embedded_rows import embedded_rows
    from superweight.evaluate.tasks import task_file

    library, cache = load_library([cards]), Cache()
    for name in ("rows", "tasks", "probe"):
        (folder / name).mkdir(parents=True)
    for entry in library.tiers[TIER].tasks:
        card = library.tasks[entry.task]
        rows = folder / "rows" / f"{card.id}.jsonl"
        embedded_rows(card.embedded, cache, progress=False).to_json(rows)
        for place in ("tasks", "probe"):
            _write_yaml(folder / place / f"{card.id}.yaml", choice_task(card.id, task_file(card), rows))
    tokens = 0
    for corpus, texts, scored in _texts(library, cache):
        tokens += scored
        for place, some in (("tasks", texts), ("probe", texts[: math.ceil(len(texts) / PROBE_SHARE)])):
            rows = folder / "rows" / f"{corpus}-{place}.jsonl"
            rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
            _write_yaml(folder / place / f"{corpus}.yaml", text_task(corpus, rows))
    return {"tokens": tokens}


def _texts(library: Any, cache: Any) -> Iterator[tuple[str, list[str], int]]:
    """Each corpus with the texts of the very windows that the tier draws, and how many tokens lm-eval scores of it."""
    from superweight.evaluate import corpus_tokens, prepare_text

    loaded = _loaded(library, cache)
    for entry in library.tiers[TIER].perplexity:
        tokens = corpus_tokens(loaded, library.corpora[entry.corpus], cache, progress=False)
        drawn = prepare_text(loaded, tokens, window=entry.window, windows=entry.windows)
        windows = [drawn.tokens_wt[number].tolist() for batch in drawn.batches for number in batch]
        texts = [document(loaded.tokenizer, window) for window in windows]
        lengths = [len(loaded.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        yield entry.corpus, texts, sum(lengths)


def _write_yaml(path: Path, definition: dict[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(definition, sort_keys=False))


def save(recipe: str, folder: Path) -> dict[str, Any]:
    """A checkpoint of the embedded model under a recipe, in bfloat16, as it is evaluated.

    Raises:
        SystemExit: the recipe changes activations, which no plain checkpoint holds.
    """
    import torch

    from superweight.cards import load_library
    from superweight.checkpoint import Cache
    from superweight.compress import Context, apply

    library = load_library()
    loaded = _loaded(library, Cache())
    known = [weight for weight in library.models[MODEL].super_weights if weight.status != "inert"]
    started = time.perf_counter()
    if library.recipes[recipe].role != "baseline":
        applied = apply(library.recipes[recipe], Context(loaded, tuple(weight.coordinate for weight in known)))
        if applied.hooks:
            raise SystemExit(f"{recipe}: changes activations of {len(applied.hooks)} modules; no checkpoint holds that")
    loaded.model.to(torch.bfloat16).save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return {"applying and saving": time.perf_counter() - started}


def _loaded(library: Any, cache: Any) -> Any:
    from superweight.checkpoint import load_model, resolve

    card = library.models[MODEL]
    return load_model(resolve(card.source, cache), device="cpu", compute_dtype=card.compute_dtype)


if __name__ == "__main__":
    main()
