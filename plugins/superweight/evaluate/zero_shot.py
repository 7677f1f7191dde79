"""Zero-shot accuracy: lm-eval's tasks and metrics on the model in memory, every item kept."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from superweight.checkpoint.quiet import collected, quiet
from superweight.errors import InfraError
from superweight.evaluate.order import batched, visiting_order
from superweight.evaluate.resident import ResidentModel
from superweight.evaluate.rows import LeftOut, bad_label, bad_pair, bad_text, require_enough, shown
from superweight.evidence.measured import ZeroShot
from superweight.forward.runner import Pair, Progress
from superweight.forward.scorer import Scorer
from superweight.plain_text import briefly

if TYPE_CHECKING:
    from superweight.cards.task import TaskCard
    from superweight.checkpoint import Cache
    from superweight.checkpoint.loading import LoadedModel
    from superweight.evaluate.lm import Answers, TaskLM
    from superweight.evaluate.tasks import Prefer, Task

_FEWSHOT_SEED = 1234  # lm-eval's own, where none is chosen
_SHOWN = 240  # characters of a prompt kept with each item
_BATCH_ITEMS = {"cpu": 50, "cuda": 250}  # items asked before a verdict is thought of: enough to fill forward passes


class PreparedTask:
    """A task's requests, tokenised once and asked of one runner after another, a batch at a time.

    The batches are fixed and drawn from all over the task, so that any of them stand for the whole; whoever asks one
    gets the same answers, whatever was asked before it.

    Args:
        lm: what lm-eval tokenises the requests with: the uncompressed model's.
        card: the task card.
        task: its definition and rows.
        limit: only the first so many rows.

    Raises:
        InfraError: too many rows cannot be asked, or lm-eval makes no requests of them (`bad-rows`).

    Attributes:
        batches: numbers of items, as lm-eval counts them.
        planned: how many items can be asked.
        left_out: rows that cannot, whatever the model answers, and why.
        content: sha256 of what is asked and how it is scored: every item's hash and target, the token ids of every
            request that is scored, and the task's settings.
    """

    def __init__(self, lm: TaskLM, card: TaskCard, task: Task, *, limit: int | None = None) -> None:
        self.card, self.data, self.sources, self._lm = card, task.data, task.sources, lm
        self._task = task.definition
        with quiet(), collected() as told:
            self._build(limit)
            scored = [one for one in self._task.instances if one.request_type == "loglikelihood"]
            self._pairs = {id(one): pair for one, pair in zip(scored, self._lm.encode_each(scored), strict=True)}
            self.left_out = tuple(self._cannot_be_asked())
        require_enough(card.id, self.left_out, len(self._documents))
        self._told = [*task.warnings, *told]
        cannot = {one.doc_id for one in self.left_out}
        asked = [number for number in self._documents if number not in cannot]
        self.planned = len(asked)
        size = _BATCH_ITEMS.get(lm.device.type, _BATCH_ITEMS["cuda"])
        self.batches = batched([asked[place] for place in visiting_order(len(asked))], size)
        self.content = self._content(asked)

    def ask(self, runner: Answers, batch: Sequence[int], *, progress: Progress | None = None) -> list[dict[str, Any]]:
        """Ask a runner some of the items.

        Args:
            runner: runs the model.
            batch: one of `batches`.
            progress: called after every forward pass.

        Returns:
            one dictionary an item: `doc_id`, `doc_hash` and `target` as lm-eval logs them, the end of the prompt, the
            choices with their log-likelihoods (nats) and whether each is what greedy decoding gives, the names of its
            metrics, and the item's value of each.
        """
        instances = [one for number in batch for one in self._requests[number]]
        for instance in instances:
            instance.resps, instance.filtered_resps = [], {}
        for kind, some in _by(instances, "request_type").items():
            repeated = [one for one in some for _ in range(one.repeats or 1)]
            for instance, response in zip(repeated, self._responses(runner, kind, repeated, progress), strict=True):
                instance.resps.append(response)
        with quiet():
            everything, self._task._instances = self._task._instances, instances
            try:
                self._task.apply_filters()
            finally:
                self._task._instances = everything
            return [self._scored(number) for number in batch]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of any figure of this task must know."""
        found = list(self._told)
        if why := self.sources.unknowable:
            found.append(f"measured anew in every run, as what it depends on cannot be known: {why}")
        if cut := self._cut_short():
            found.append(f"{cut} prompts lost their beginning: the model is fed {self._lm.max_length} tokens at most")
        return tuple(found)

    @property
    def tokens(self) -> int:
        """Tokens that a model would be fed if it scored every request alone."""
        pairs = [pair for pair in self._pairs.values() if not isinstance(pair, Exception)]
        return sum(len(context) + len(continuation) - 1 for context, continuation in pairs)

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
            items=list(items),
            data=self.data,
            version=f"{self._task.VERSION} (lm-eval {version('lm-eval')})",
            num_fewshot=int(self._task.config.num_fewshot or 0),
            warnings=list(self.warnings),
            left_out=[row._asdict() for row in self.left_out],
        )

    def measure(self, runner: Answers, *, progress: Progress | None = None) -> ZeroShot:
        """Ask a runner every item; see `ask`."""
        items: list[dict[str, Any]] = []
        for batch in self.batches:
            items += self.ask(runner, batch)
            if progress:
                progress(len(items), self.planned)
        return self.figure(items)

    def _build(self, limit: int | None) -> None:
        """Let lm-eval make its requests."""
        try:
            self._task.set_fewshot_seed(_FEWSHOT_SEED)
            self._task.build_all_requests(limit=limit, rank=0, world_size=1)
            self._documents = dict(self._task.doc_iterator(rank=0, limit=limit, world_size=1))
        except Exception as error:
            raise InfraError(
                f"task '{self.card.id}': lm-eval cannot make requests of its rows ({briefly(error)}). "
                "Correct doc_to_text, doc_to_choice and doc_to_target in the task's YAML, or the rows.",
                reason="bad-rows",
            ) from error
        self._requests = _by(self._task.instances, "doc_id")

    def _cannot_be_asked(self) -> Iterator[LeftOut]:
        """Rows that no model can be asked, with the first reason found."""
        for number, document in self._documents.items():
            requests = self._requests.get(number, [])
            if reason := self._why_not(document, requests):
                prompt = str(requests[0].args[0]) if requests else ""
                yield LeftOut(number, shown(document, prompt), reason)

    def _why_not(self, document: Any, requests: Sequence[Any]) -> str:
        if not requests:
            return "makes no request (no choices)"
        for one in requests:
            if id(one) in self._pairs and (
                reason := bad_pair(str(one.args[1]), self._pairs[id(one)], self._lm.max_length)
            ):
                return reason
        try:
            self._task.doc_to_target(document)
            return bad_text(self._task, document) or bad_label(self._task, document)
        except Exception as error:  # the task's own code and templates
            return f"has no target that can be read ({briefly(error)})"

    def _cut_short(self) -> int:
        """How many requests are longer than what the model is fed, and so lose their beginning, as in lm-eval."""
        pairs = [pair for pair in self._pairs.values() if not isinstance(pair, Exception)]
        return sum(len(context) + len(answer) > self._lm.max_length + 1 for context, answer in pairs)

    def _content(self, asked_numbers: Sequence[int]) -> str:
        asked = {}
        for number in asked_numbers:
            requests = self._requests[number]
            pairs = [self._pairs.get(id(one)) or str(one.args) for one in requests]
            asked[str(number)] = [doc_hash(requests[0].doc), pairs]
        targets = {str(number): str(self._task.doc_to_target(self._documents[number])) for number in asked_numbers}
        rules = [_sourced(self._task.dump_config()), str(self._task.VERSION), self.card.metric, self.sources.content]
        left_out = [one.doc_id for one in self.left_out]
        return hashlib.sha256(json.dumps([asked, targets, rules, left_out], default=str).encode()).hexdigest()

    def _responses(self, runner: Answers, kind: str, instances: list[Any], progress: Progress | None) -> list[Any]:
        if kind == "loglikelihood":
            pairs = [self._pair(instance) for instance in instances]
            return list(runner.score_continuations(pairs, max_length=self._lm.max_length, progress=progress))
        self._lm.runner = runner
        try:
            with quiet():
                return list(getattr(self._lm, kind)(instances, disable_tqdm=True))
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InfraError(
                f"task '{self.card.id}': lm-eval cannot ask a model for '{kind}' ({briefly(error)}). "
                "Correct output_type or generation_kwargs in the task's YAML.",
                reason="bad-card",
            ) from error

    def _pair(self, instance: Any) -> Pair:
        pair = self._pairs[id(instance)]
        if isinstance(pair, Exception):  # its row was left out
            raise pair
        return pair

    def _scored(self, number: int) -> dict[str, Any]:
        try:
            return self._item(number)
        except Exception as error:  # the task's own code, or a metric that is not for answers of this type
            raise InfraError(
                f"task '{self.card.id}': lm-eval cannot score what the model answers to row {number} "
                f"({briefly(error)}). Correct output_type or metric_list in the task's YAML.",
                reason="bad-card",
            ) from error

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
        metrics = {name: self._summed_up(name, how[name], values[name]) for name in values}
        means = [name for name in values if how[name] is mean and len(values[name]) > 1]
        return metrics, {name: float(mean_stderr(values[name])) for name in means}

    def _summed_up(self, name: str, how: Any, values: Sequence[Any]) -> float:
        try:
            return float(how(values))
        except Exception as error:
            raise InfraError(
                f"task '{self.card.id}': metric '{name}': its aggregation makes no number of what an item has, such as "
                f"{str(values[0])[:_SHOWN]!r} ({briefly(error)}). Correct output_type or metric_list "
                "in the task's YAML.",
                reason="bad-card",
            ) from error


def prepare_task(
    lm: TaskLM,
    card: TaskCard,
    cache: Cache,
    *,
    limit: int | None = None,
    prefer: Prefer = "auto",
    progress: bool = True,
) -> PreparedTask:
    """Fetch a task's rows and tokenise its requests.

    Args:
        lm: of the uncompressed model, `ResidentModel.task_lm`.
        card: the task card.
        cache: where the rows are kept.
        limit: only the first so many items, as in lm-eval.
        prefer: where rows come from; see `load_task`.
        progress: whether downloads show a bar.

    Raises:
        CardError, InfraError: see `load_task`.
    """
    from superweight.evaluate.tasks import load_task

    task = load_task(card, cache, prefer=prefer, progress=progress)
    return PreparedTask(lm, card, task, limit=limit)


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
    model = ResidentModel(Scorer(loaded, batch_tokens=batch_tokens))
    return prepare_task(model.task_lm, card, cache, limit=limit, prefer=prefer).measure(model, progress=progress)


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
