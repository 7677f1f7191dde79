"""lm-eval's task definitions by name or YAML path, without indexing its whole task tree, on rows from hub or wheel."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from superweight.cards.task import TaskCard
from superweight.checkpoint import Cache
from superweight.checkpoint.fetching.problems import missing_package
from superweight.checkpoint.quiet import collected, quiet
from superweight.errors import CardError, InfraError, SuperweightError
from superweight.evaluate.embedded_rows import describe, embedded_rows
from superweight.evaluate.first_row import Tried, as_given, sound_first_row
from superweight.evaluate.hub_rows import hub_errors, hub_in_reach
from superweight.evaluate.local_rows import all_json, json_rows, local_files, needs_files, rows_cache
from superweight.evaluate.task_sources import TaskSources, task_sources
from superweight.evaluate.yaml_text import check_yaml
from superweight.plain_text import briefly

Prefer = Literal["auto", "hub", "embedded"]

_NAME = re.compile(rb"""^['\"]?(task|group)['\"]?:[ \t]*['\"]?([^\s'\"#\[\]]+)""", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """A task ready to be asked.

    Attributes:
        definition: lm-eval's task object, its rows loaded.
        data: where the rows came from and which split they are.
        sources: what its figures depend on besides; empty for tasks of an installed lm-eval, whose version tells.
        warnings: what lm-eval said while it was built.
    """

    definition: Any
    data: str
    sources: TaskSources = field(default_factory=TaskSources)
    warnings: tuple[str, ...] = ()


def load_task(card: TaskCard, cache: Cache, *, prefer: Prefer = "auto", progress: bool = True) -> Task:
    """Build lm-eval's task and give it its rows.

    With `prefer="auto"`, a card with embedded rows uses them if `HF_HUB_OFFLINE` is set or the hub does not answer,
    and the hub's rows otherwise; what was used is in `Task.data`. A card without embedded rows always uses the hub
    (or whatever its YAML names). Build a task once and measure every cell with it: then all see the same rows.

    Raises:
        CardError: no such task, a group of tasks, a bad YAML, or a metric that the task does not have.
        InfraError: the rows cannot be had.
    """
    path = task_file(card)
    installed = bool({"site-packages", "dist-packages"} & set(path.parts))
    if not installed:
        check_yaml(path)
    sources = TaskSources() if installed else task_sources(path)
    with collected() as told:
        task = _load(card, path, cache, prefer, progress)
    known = [str(name) for name in task.definition.aggregation()]
    if card.metric not in known:
        raise CardError(f"task card '{card.id}': metric: '{card.metric}' is none of the task's: {', '.join(known)}")
    _check_metric(card, path, task.definition)
    return replace(task, sources=sources, warnings=tuple(told))


def _check_metric(card: TaskCard, path: Path, definition: Any) -> None:
    """How figures are made of items, and whether more of one is better, or a gate would look the wrong way."""
    for name in ("process_results", "custom_dataset"):
        if (given := getattr(definition.config, name)) is not None and not callable(given):  # passed over by lm-eval
            raise CardError(f"{path}: {name}: expected a function, as in '!function code.f', found {str(given)[:80]!r}")
    for name, how in definition.aggregation().items():
        if not callable(how):
            raise CardError(f"{path}: metric_list: {name}: aggregation: expected one of lm-eval's, such as mean")
    better = definition.higher_is_better().get(card.metric, True)
    if not isinstance(better, bool):
        raise CardError(
            f"{path}: metric_list: {card.metric}: higher_is_better: expected true or false, found {better!r}"
        )
    listed = [str(entry.get("metric")) for entry in definition.config.metric_list or ()]
    if listed.count(card.metric) > 1:
        raise CardError(f"{path}: metric_list: '{card.metric}' is listed twice; keep one of them")


def _load(card: TaskCard, path: Path, cache: Cache, prefer: Prefer, progress: bool) -> Task:
    if card.embedded and (prefer == "embedded" or (prefer == "auto" and not hub_in_reach())):
        rows = embedded_rows(card.embedded, cache, progress=progress)
        return Task(_build(card, path, _with_rows(path, rows), cache), describe(card.embedded))
    definition = _build(card, path, _from_hub(path, cache), cache)
    split = definition.config.test_split or definition.config.validation_split
    return Task(definition, f"{definition.config.dataset_path or 'custom'}: {split} split")


def task_file(card: TaskCard) -> Path:
    """The YAML file that defines a card's task.

    Raises:
        CardError: there is none; names the closest tasks.
        InfraError: lm-eval is not installed.
    """
    if card.task.endswith((".yaml", ".yml")):
        path = Path(card.task).expanduser()
        with suppress(OSError, ValueError):  # of a name that no file can have
            if path.is_file():
                return path
        raise CardError(f"task card '{card.id}': task: no such file {str(path)[:300]}")
    root = _tree()
    near = sorted((f for f in root.iterdir() if f.is_dir() and card.task.startswith(f.name)), reverse=True)
    for folder in (*near, root):
        names = dict(_definitions(folder))
        if found := names.get(("task", card.task)):
            return found
    raise CardError(_unknown(card, names))


def _unknown(card: TaskCard, names: dict[tuple[str, str], Path]) -> str:
    if ("group", card.task) in names:
        return f"task card '{card.id}': task: '{card.task}' is a group of lm-eval tasks; name one task of it"
    close = difflib.get_close_matches(card.task, [name for kind, name in names if kind == "task"], n=5, cutoff=0.6)
    hint = f" Close: {', '.join(close)}." if close else ""
    return (
        f"task card '{card.id}': task: lm-eval knows no task '{card.task}'.{hint} "
        "Expected the name of an lm-eval task or the path of a task YAML."
    )


def _tree() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise missing_package("lm-eval", "zero-shot evaluation")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def _definitions(folder: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    """`(kind, name)` and file of every task and group below a folder, read as text: parsing all YAML takes 8 s."""
    for directory, _, files in os.walk(folder):
        for file in files:
            if file.endswith(".yaml"):
                path = Path(directory, file)
                for kind, name in _NAME.findall(path.read_bytes()):
                    yield (kind.decode(), name.decode(errors="replace")), path


def _build(card: TaskCard, path: Path, overrides: dict[str, Any], cache: Cache) -> Any:
    """lm-eval's task object for one YAML file."""
    tried = Tried()
    try:
        with hub_errors(f"the rows of task '{card.task}'", cache), sound_first_row() as tried:
            from lm_eval.tasks._factory import TaskFactory
            from lm_eval.tasks._index import TaskIndex

            entry = TaskIndex.entry_from_path(path)
            built = as_given(TaskFactory().build(entry, overrides=overrides, registry={})) if entry else None
    except SuperweightError:
        raise
    except Exception as error:  # whatever a task's settings and Python may raise
        if tried.none_sound:
            raise InfraError(
                f"task '{card.id}': none of its rows can be asked, and lm-eval fails on row 0 "
                f"({briefly(error)}). Correct the rows, or doc_to_text, doc_to_choice and doc_to_target "
                f"in {path}.",
                reason="bad-rows",
            ) from error
        raise _unreadable(path, error) from error
    if not hasattr(built, "build_all_requests"):
        raise CardError(f"task card '{card.id}': task: {path} defines a group of tasks or no task; expected one task")
    if getattr(built, "MULTIMODAL", False) or getattr(built, "UNSAFE_CODE", False):
        raise InfraError(f"task '{card.task}' needs images, sound or running generated code", reason="unsupported")
    return built


def _yaml(path: Path) -> dict[str, Any]:
    with quiet():
        from lm_eval.tasks._yaml_loader import load_yaml
    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=False)
    except Exception as error:  # YAML, and the Python that it names
        raise _unreadable(path, error) from error
    if not isinstance(config, dict) or "group" in config or not {"task", "class"} & set(config):
        raise CardError(f"{path}: defines {_what(config)}; expected the settings of one task, 'task: NAME' among them")
    return config


def _what(config: Any) -> str:
    if isinstance(config, dict):
        return "a group of tasks" if "group" in config else "no task"
    return "nothing" if config is None else f"a {type(config).__name__}"


def _unreadable(path: Path, error: Exception) -> CardError:
    return CardError(f"{path}: not a task that lm-eval can read: {briefly(error)}")


def _no_examples(config: dict[str, Any]) -> dict[str, Any]:
    """A task that is asked without examples need not load and process its training split."""
    if config.get("num_fewshot") or "fewshot_config" in config:
        return {}
    return {"training_split": None, "fewshot_split": None}


def _with_rows(path: Path, rows: Any) -> dict[str, Any]:
    """Settings that make lm-eval take `rows` for the split that it evaluates."""
    config = _yaml(path)
    if config.get("num_fewshot"):
        raise CardError(f"{path}: asks for {config['num_fewshot']} examples, which embedded rows do not have")
    splits = {split for key in ("validation_split", "test_split") if (split := config.get(key))}
    return {"custom_dataset": lambda **_: dict.fromkeys(splits, rows), **_no_examples(config)}


def _from_hub(path: Path, cache: Cache) -> dict[str, Any]:
    config = _yaml(path)
    if config.get("custom_dataset") is not None or "class" in config:
        return {}
    settings = config.get("dataset_kwargs") or {}
    if not isinstance(settings, dict):
        raise CardError(f"{path}: dataset_kwargs: expected keys and values, found {str(settings)[:80]!r}")
    if needs_files(config.get("dataset_path")) and not {"data_files", "data_dir"} & set(settings):
        raise CardError(
            f"{path}: dataset_kwargs: expected data_files, the files that '{config['dataset_path']}' is to read; "
            "without them it reads whatever lies where the run is started"
        )
    try:
        return {**_rows_of(config, settings, cache), **_no_examples(config)}
    except InfraError as error:
        raise InfraError(f"{path}: {error}", reason=error.reason) from error


def _rows_of(config: dict[str, Any], settings: dict[str, Any], cache: Cache) -> dict[str, Any]:
    """Settings that make lm-eval take the rows of local JSON as they are, and all others by way of `datasets`."""
    files = local_files(config.get("dataset_path"), settings.get("data_files"))
    if files and config["dataset_path"] == "json" and set(settings) == {"data_files"} and all_json(files):
        rows = json_rows(files)
        return {"custom_dataset": lambda **_: dict(rows)}
    return {"dataset_kwargs": {"cache_dir": str(rows_cache(config.get("dataset_path"), settings, cache)), **settings}}
