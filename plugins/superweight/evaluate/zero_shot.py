"""Zero-shot accuracy: lm-eval's tasks and metrics on the model in memory, every item kept."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from superweight.evaluate.likelihood import Progress, Scorer
from superweight.evaluate.order import batched, visiting_order
from superweight.evaluate.quiet import quiet

if TYPE_CHECKING:
    from superweight.cards.data import TaskCard
    from superweight.checkpoint import Cache
    from superweight.checkpoint.loading import LoadedModel
    from superweight.evaluate.tasks import Prefer, Task

_FEWSHOT_SEED = 1234  # lm-eval's own, where none is chosen
_SHOWN = 240  # characters of a prompt kept with each item
_BATCH_ITEMS = {"cpu": 50, "cuda": 250}  # items asked before a verdict is thought of: enough to fill forward passes


@dataclass(frozen=True)
class ZeroShot:
    """One task's result.

    Attributes:
        task: lm-eval's name of the task.
        metric: the metric that is gated.
        metrics: every metric of the task, as lm-eval aggregates it.
        stderr: standard errors of those that are means, as lm-eval computes them.
        higher_is_better: of the gated metric.
        n: how many items were asked.
        planned: how many would have been without stopping early.
        items: one dictionary an item, in the task's order: `doc_id`, `doc_hash` and `target` as lm-eval logs them, the
            end of the prompt, the choices with their log-likelihoods (nats) and whether each is what greedy decoding
            gives, the names of its metrics, and the item's value of each.
        data: where the rows came from and which split they are.
        version: of the task and of lm-eval.
        num_fewshot: examples shown before each question.
        warnings: what a reader of the figure must know of how it came about.
    """

    task: str
    metric: str
    metrics: dict[str, float]
    stderr: dict[str, float]
    higher_is_better: bool
    n: int
    planned: int
    items: tuple[dict[str, Any], ...]
    data: str
    version: str
    num_fewshot: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "items": list(self.items), "warnings": list(self.warnings)}


class PreparedTask:
    """A task's requests, tokenised for one model: made once, asked a batch at a time under one recipe after another.

    The batches are fixed and drawn from all over the task, so that any of them stand for the whole; whoever asks one
    gets the same answers, whatever was asked before it. Make it before a recipe is applied; see `Scorer`.

    Args:
        scorer: of the model.
        card: the task card.
        task: its definition and rows.
        limit: only the first so many items.

    Attributes:
        batches: numbers of items, as lm-eval counts them.
        planned: how many items there are.
        content: sha256 of what is asked and how it is scored: every item's hash and target, the token ids of every
            request that is scored, and the task's settings.
    """

    def __init__(self, scorer: Scorer, card: TaskCard, task: Task, *, limit: int | None = None) -> None:
        self.card, self.data, self.sources, self._scorer = card, task.data, task.sources, scorer
        self._task = task.definition
        with quiet():
            from superweight.evaluate.lm import InMemoryLM

            self._lm = InMemoryLM(scorer)
            self._task.set_fewshot_seed(_FEWSHOT_SEED)
            self._task.build_all_requests(limit=limit, rank=0, world_size=1)
            self._documents = dict(self._task.doc_iterator(rank=0, limit=limit, world_size=1))
            self._requests = _by(self._task.instances, "doc_id")
            scored = [one for one in self._task.instances if one.request_type == "loglikelihood"]
            self._pairs = {id(one): pair for one, pair in zip(scored, self._lm.encode(scored), strict=True)}
        self.planned = len(self._documents)
        asked = [number for number in self._documents if number in self._requests]
        size = _BATCH_ITEMS.get(scorer.loaded.device.type, _BATCH_ITEMS["cuda"])
        self.batches = batched([asked[place] for place in visiting_order(len(asked))], size)
        self.content = self._content()

    def ask(
        self, batch: Sequence[int], *, progress: Progress | None = None, alone: bool = False
    ) -> list[dict[str, Any]]:
        """Ask the model, as it is now, some of the items.

        Args:
            batch: one of `batches`.
            progress: called after every forward pass.
            alone: as in `Scorer.continuations`.

        Returns:
            one dictionary an item; see `ZeroShot.items`.
        """
        instances = [one for number in batch for one in self._requests[number]]
        for instance in instances:
            instance.resps, instance.filtered_resps = [], {}
        for kind, some in _by(instances, "request_type").items():
            repeated = [one for one in some for _ in range(one.repeats or 1)]
            for instance, response in zip(repeated, self._responses(kind, repeated, progress, alone), strict=True):
                instance.resps.append(response)
        with quiet():
            everything, self._task._instances = self._task._instances, instances
            try:
                self._task.apply_filters()
            finally:
                self._task._instances = everything
            return [self._item(number) for number in batch]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of any figure of this task must know."""
        why = self.sources.unknowable
        return (f"measured anew in every run, as what it depends on cannot be known: {why}",) if why else ()

    @property
    def tokens(self) -> int:
        """Tokens that a model would be fed if it scored every request alone."""
        return sum(len(context) + len(continuation) - 1 for context, continuation in self._pairs.values())

    def figure(self, items: Sequence[dict[str, Any]]) -> ZeroShot:
        """The figure from what `ask` returned for some of the items; at least one."""
        items = sorted(items, key=lambda item: int(item["doc_id"]))
        with quiet():
            metrics, stderr = self._aggregate(items)
        return ZeroShot(
            task=self._task.task_name,
            metric=self.card.metric,
            metrics=metrics,
            stderr=stderr,
            higher_is_better=bool(self._task.higher_is_better().get(self.card.metric, True)),
            n=len(items),
            planned=self.planned,
            items=tuple(items),
            data=self.data,
            version=f"{self._task.VERSION} (lm-eval {version('lm-eval')})",
            num_fewshot=int(self._task.config.num_fewshot or 0),
            warnings=self.warnings,
        )

    def measure(self, *, progress: Progress | None = None, alone: bool = False) -> ZeroShot:
        """Ask the model every item; see `ask`."""
        items: list[dict[str, Any]] = []
        for batch in self.batches:
            items += self.ask(batch, alone=alone)
            if progress:
                progress(len(items), self.planned)
        return self.figure(items)

    def _content(self) -> str:
        asked = {
            str(number): [doc_hash(requests[0].doc), [self._pairs.get(id(one)) or str(one.args) for one in requests]]
            for number, requests in self._requests.items()
        }
        targets = {str(number): str(self._task.doc_to_target(doc)) for number, doc in self._documents.items()}
        rules = [_sourced(self._task.dump_config()), str(self._task.VERSION), self.card.metric, self.sources.content]
        return hashlib.sha256(json.dumps([asked, targets, rules], default=str).encode()).hexdigest()

    def _responses(self, kind: str, instances: list[Any], progress: Progress | None, alone: bool) -> list[Any]:
        if kind == "loglikelihood":
            pairs = [self._pairs[id(instance)] for instance in instances]
            longest = self._lm.max_length
            return list(self._scorer.continuations(pairs, max_length=longest, progress=progress, alone=alone))
        with quiet(), self._scorer.loaded.arithmetic():
            return list(getattr(self._lm, kind)(instances, disable_tqdm=True))

    def _item(self, number: int) -> dict[str, Any]:
        """One item with its value of every metric; metrics of filters beyond the first are `metric,filter`."""
        document = self._documents[number]
        requests = sorted(self._requests[number], key=lambda request: request.idx)
        found: dict[str, Any] = {}
        for place, key in enumerate(requests[0].filtered_resps):
            scored = self._task.process_results(document, [request.filtered_resps[key] for request in requests])
            found.update({f"{name},{key}" if place else name: value for name, value in scored.items()})
        described = self._described(number, document, requests)
        return _plain({**described, "metrics": list(found), **found})  # type: ignore[no-any-return]

    def _described(self, doc_id: int, document: Any, requests: list[Any]) -> dict[str, Any]:
        item = {
            "doc_id": doc_id,
            "doc_hash": doc_hash(requests[0].doc),
            "target": self._task.doc_to_target(document),
            "text": str(requests[0].args[0])[-_SHOWN:],
        }
        if requests[0].request_type != "loglikelihood":
            return {**item, "responses": [request.resps[0] for request in requests]}
        item["choices"] = [str(request.args[1])[:_SHOWN] for request in requests]
        item["loglikelihoods"] = [request.resps[0][0] for request in requests]
        item["is_greedy"] = [request.resps[0][1] for request in requests]
        return item

    def _aggregate(self, items: Sequence[dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
        from lm_eval.api.metrics import mean, mean_stderr

        values: dict[str, list[Any]] = defaultdict(list)
        for item in items:
            for name in item["metrics"]:
                values[name].append(item[name])
        how = {name: self._task.aggregation().get(name.partition(",")[0], mean) for name in values}
        metrics = {name: float(how[name](values[name])) for name in values}
        means = [name for name in values if how[name] is mean and len(values[name]) > 1]
        return metrics, {name: float(mean_stderr(values[name])) for name in means}


def prepare_task(
    loaded: LoadedModel,
    card: TaskCard,
    cache: Cache,
    *,
    limit: int | None = None,
    prefer: Prefer = "auto",
    scorer: Scorer | None = None,
    progress: bool = True,
) -> PreparedTask:
    """Fetch a task's rows and tokenise its requests for one model.

    Args:
        loaded: the model, no recipe applied yet.
        card: the task card.
        cache: where the rows are kept.
        limit: only the first so many items, as in lm-eval.
        prefer: where rows come from; see `load_task`.
        scorer: of the model, if there is one already.
        progress: whether downloads show a bar.

    Raises:
        CardError, InfraError: see `load_task`.
    """
    from superweight.evaluate.tasks import load_task

    task = load_task(card, cache, prefer=prefer, progress=progress)
    return PreparedTask(scorer or Scorer(loaded), card, task, limit=limit)


def zero_shot(
    loaded: LoadedModel,
    card: TaskCard,
    cache: Cache,
    *,
    limit: int | None = None,
    prefer: Prefer = "auto",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> ZeroShot:
    """Measure one task once; to measure several recipes, keep what `prepare_task` returns.

    Raises:
        CardError, InfraError: see `load_task`.
    """
    scorer = Scorer(loaded, batch_tokens=batch_tokens)
    return prepare_task(loaded, card, cache, limit=limit, prefer=prefer, scorer=scorer).measure(progress=progress)


def doc_hash(document: Any) -> str:
    """lm-eval's hash of a document, as in its logged samples."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def _sourced(value: Any) -> Any:
    """A task's settings with functions as their source, so that another rule of scoring is another task."""
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    if isinstance(value, dict):
        return {str(key): _sourced(each) for key, each in value.items()}
    return [_sourced(each) for each in value] if isinstance(value, list | tuple) else value


def _by(instances: Iterable[Any], attribute: str) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for instance in instances:
        groups[getattr(instance, attribute)].append(instance)
    return dict(groups)


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries only."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
