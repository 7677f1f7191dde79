"""Zero-shot accuracy of the embedded model: this library against lm-eval's HFLM, the same items in one process.

    python benchmarks/zero_shot.py [--dtype float32|bfloat16] [--limit N] [--tasks TASK…] [-o FILE]

Both score the same items of the paper's seven tasks under the same loaded weights. HFLM runs in lm-eval's own loop at
the batch size that is fastest for it on each task's first items; its time is that of `HFLM.loglikelihood` alone, ours
that of all that `PreparedTask.measure` does. In bfloat16, HFLM gets a copy of the model in bfloat16, as its users do,
and this library the stored weights and autocast, as in a gate. A quarter of an hour on two cores in float32.
"""

import argparse
import copy
import statistics
from pathlib import Path

import torch

from measuring import copy_bandwidth, in_words, machine, matmul_peak, say, seconds, table, write
from superweight.cards import load_library
from superweight.checkpoint import Cache, load_model, resolve
from superweight.checkpoint.quiet import quiet
from superweight.evaluate import PreparedTask, ResidentModel, load_task, prepare_task
from superweight.forward.scorer import Scorer

MODEL = "smollm2-135m-instruct"
TASKS = ("arc_challenge", "arc_easy", "hellaswag", "lambada_openai", "piqa", "sciq", "winogrande")
BATCH_SIZES = (8, 16, 32)
PROBED = 25  # items on which HFLM's batch size is chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--limit", type=int, default=250, help="items a task (default 250)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("-o", type=Path, help="write everything measured as JSON")
    options = parser.parse_args()
    found = measure(options.tasks, dtype=options.dtype, limit=options.limit)
    print(report(found))
    if options.o:
        write(options.o, found)


def measure(tasks, *, dtype: str, limit: int) -> dict:
    """Seconds, accuracies and differences of every task on both sides."""
    library, cache = load_library(), Cache()
    checkpoint = resolve(library.models[MODEL].source, cache)
    loaded = load_model(checkpoint, compute_dtype=dtype)
    model = ResidentModel(Scorer(loaded))
    theirs = loaded.model if dtype == "float32" else copy.deepcopy(loaded.model).to(torch.bfloat16)
    rows = []
    for name in tasks:
        card = library.tasks[name]
        task = prepare_task(model.task_lm, card, cache, limit=limit, prefer="embedded")
        definition = load_task(card, cache, prefer="embedded").definition
        rows.append(compare(task, model, definition, theirs, loaded.tokenizer, limit) | {"task": name})
        say(f"{name}: HFLM {rows[-1]['hflm_s']:.1f} s, here {rows[-1]['ours_s']:.1f} s")
    peak = matmul_peak(getattr(torch, dtype))
    return {
        "benchmark": "zero_shot",
        "machine": machine(),
        "dtype": dtype,
        "limit": limit,
        "limits": {"matmul_peak": peak, "copy_bandwidth": copy_bandwidth()},
        "operations_a_token": 2 * body_weights(loaded.model),
        "tasks": rows,
    }


def compare(task: PreparedTask, ours: ResidentModel, definition, model, tokenizer, limit: int) -> dict:
    """One task on both sides; ours first and last, so that a drifting machine shows."""
    size = min(BATCH_SIZES, key=lambda size: hflm(definition, model, tokenizer, size, min(limit, PROBED))[0])
    answers = {}
    times = [seconds(lambda: answers.update(figure=task.measure(ours)))]
    hflm_s, accuracy, samples = hflm(definition, model, tokenizer, size, limit)
    times.append(seconds(lambda: task.measure(ours)))
    differences, greedy = [], 0
    for item in answers["figure"].items:
        theirs = [response[0] for response in samples[item["doc_id"]]["resps"]]
        differences += [abs(a - b) for a, (b, _) in zip(item["loglikelihoods"], theirs, strict=True)]
        greedy += sum(a != b for a, (_, b) in zip(item["is_greedy"], theirs, strict=True))
    metric = answers["figure"].metric
    return {
        "requests": len(differences),
        "tokens": task.tokens,
        "batch_size": size,
        "hflm_s": hflm_s,
        "ours_s": statistics.median(times),
        "ours_all_s": times,
        "accuracy": {"ours": answers["figure"].metrics[metric], "hflm": accuracy[metric]},
        "largest_difference": max(differences),
        "other_greedy": greedy,
    }


def hflm(definition, model, tokenizer, batch_size: int, limit: int) -> tuple[float, dict, dict]:
    """Seconds that HFLM spends on log-likelihoods in lm-eval's own loop, the metrics, and its samples by item."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    took = []

    class Timed(HFLM):
        def loglikelihood(self, requests, disable_tqdm: bool = False):
            answers = []
            took.append(seconds(lambda: answers.extend(super(Timed, self).loglikelihood(requests, disable_tqdm=True))))
            return answers

    with quiet():
        lm = Timed(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        name = definition.task_name
        found = evaluate(lm, {name: definition}, limit=limit, bootstrap_iters=0, log_samples=True)
    metrics = {key.removesuffix(",none"): value for key, value in found["results"][name].items()}
    return sum(took), metrics, {sample["doc_id"]: sample for sample in found["samples"][name]}


def body_weights(model) -> int:
    """Weights that every token passes: all but the embedding table, which serves as the head."""
    return sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()


def report(found: dict) -> str:
    """The table, and beside it what the machine could do at best."""
    rows = [
        [
            row["task"],
            row["requests"],
            row["batch_size"],
            f"{row['hflm_s'] / row['ours_s']:.2f}",
            f"{row['accuracy']['hflm']:.4f}",
            f"{row['accuracy']['ours']:.4f}",
            f"{row['largest_difference']:.1e}",
        ]
        for row in found["tasks"]
    ]
    theirs, ours = (sum(row[key] for row in found["tasks"]) for key in ("hflm_s", "ours_s"))
    rows.append(["all", sum(row["requests"] for row in found["tasks"]), "", f"{theirs / ours:.2f}", "", "", ""])
    headers = ["task", "requests", "HFLM's batch", "times faster", "accuracy, HFLM", "here", "largest Δ loglik"]
    tokens = sum(row["tokens"] for row in found["tasks"])
    busy = tokens * found["operations_a_token"] / found["limits"]["matmul_peak"]
    return "\n".join(
        [
            f"Zero-shot, {found['limit']} items a task, {found['dtype']}. {in_words(found['machine'])}",
            "",
            table(headers, rows),
            "",
            f"A {found['dtype']} product reaches {found['limits']['matmul_peak'] / 1e9:.0f} GFLOP/s here. At that rate "
            "the linear layers alone of every request by itself, no logits, no attention, would take "
            f"{busy / ours:.2f} times as long as all of it took here, and HFLM took {theirs / busy:.2f} times that.",
        ]
    )


if __name__ == "__main__":
    main()
