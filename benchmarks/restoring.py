"""Ways to bring super weights back in an artefact of the embedded model: what each costs in bytes, and what it buys.

    python benchmarks/restoring.py [--bases NAME …] [--gguf FILE …] [--windows N] [-o FILE]

The uncompressed model is the checkpoint in bfloat16, as models are released. Bases: 8 bits a row with rows clipped at a
quantile, which makes the rest finer and cuts the super weights, and 4 bits in groups of 64. Beside each base as it is
stand the same with an adapter (`superweight adapter`), kept in float32 and in the base's dtype, and the same with
the modules of super weights left unquantised (`ignore`). `--gguf` takes files: one, measured as it is and with an
adapter, then others with the tensors of super weights in another type (`llama-quantize --tensor-type`); repeat it for
another base. Every one is loaded from its files by transformers and scored on the same windows; intervals are 95 %,
paired with the uncompressed model. Twenty minutes on two cores that do nothing else.
"""

import argparse
import gc
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

from measuring import in_words, machine, say, table, write
from packing import write_packed
from superweight.artefact.adapter import AdaptedReader, Adapter
from superweight.artefact.check import check
from superweight.artefact.reading import Reader, open_reader
from superweight.artefact.super_weight_list import of_card
from superweight.artefact.writing.adapter import write_adapter
from superweight.cards import load_library
from superweight.cards.promise import Promise
from superweight.checkpoint import Cache, LoadedModel, resolve
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.quiet import quiet
from superweight.evaluate import ResidentModel, corpus_tokens, perplexity_figure, prepare_text, score_batch
from superweight.evidence.artefact import ArtefactCheck
from superweight.evidence.measured import Perplexity
from superweight.forward.runner import TextWindows
from superweight.forward.scorer import Scorer
from superweight.statistics.noninferiority import ErrorBudget, PairedTest, compare_means

MODEL, CORPUS, DTYPE = "smollm2-135m-instruct", "wiki-embedded", "bfloat16"
AS_IT_IS = "as it is"
LINEAR = ("_proj",)


def down(name: str) -> bool:
    return name.endswith("down_proj")


def linear(name: str) -> bool:
    return name.endswith(LINEAR)


BASES = {
    "W8 a row, down_proj, clipped at 0.999": {"bits": 8, "clip": 0.999, "chosen": down},
    "W8 a row, all linear, clipped at 0.999": {"bits": 8, "clip": 0.999, "chosen": linear},
    "W4 groups of 64, all linear": {"bits": 4, "group": 64, "chosen": linear},
}
"""How each artefact is rounded: `packing.write_packed`."""


class Variant(NamedTuple):
    """One thing that could be shipped."""

    name: str
    artefact: Path
    adapter: Path | None = None
    kept: str = "float32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="*", choices=BASES, default=list(BASES), metavar="NAME", help="; ".join(BASES))
    parser.add_argument("--gguf", nargs="+", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--window", type=int, default=512, help="tokens a window (default 512)")
    parser.add_argument("--windows", type=int, default=24, help="how many, drawn from all over the text (default 24)")
    parser.add_argument("-o", type=Path, help="write everything measured as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = {"benchmark": "restoring", "machine": machine(), "windows": [options.windows, options.window]}
        found |= {"figures": measure(Path(work), options)}
    print(report(found))
    if options.o:
        write(options.o, found)


def measure(work: Path, options: argparse.Namespace) -> list[dict]:
    """Every variant of every base, the uncompressed model first."""
    library, cache = load_library(), Cache()
    card = library.models[MODEL]
    checkpoint = resolve(card.source, cache)
    source = dense(checkpoint.directory, work / "dense")
    original = replace(loaded(Variant("uncompressed", source)), tokenizer=AutoTokenizer.from_pretrained(source))
    tokens = corpus_tokens(original, library.corpora[CORPUS], cache)
    text = prepare_text(original, tokens, window=options.window, windows=options.windows, name=CORPUS)
    before = scored(original, text)
    del original
    rows = [{"base": "", "variant": "uncompressed", "bytes": size(source), "perplexity": before.value}]
    for name, variant in every(options, checkpoint.directory, source, work, of_card(card)):
        say(f"{name}: {variant.name}")
        reference = checkpoint.directory if variant.artefact.is_file() else source
        rows.append(figures(name, variant, reference, of_card(card), text, before))
        gc.collect()
    return rows


def every(
    options: argparse.Namespace, checkpoint: Path, source: Path, work: Path, super_weights: dict
) -> Iterator[tuple[str, Variant]]:
    """All variants, each with its base's name."""
    for name in options.bases:
        yield from ((name, variant) for variant in variants(name, source, work, super_weights))
    for base, *others in options.gguf:
        yield f"GGUF {base.stem}", Variant(AS_IT_IS, base)
        adapter = work / f"{base.stem}-adapter"
        write_adapter(open_reader(base), open_reader(checkpoint), super_weights, adapter)
        yield f"GGUF {base.stem}", Variant("adapter, kept in float32", base, adapter)
        for other in others:
            yield f"GGUF {base.stem}", Variant(other.stem.removeprefix(base.stem).strip("-"), other)


def dense(directory: Path, target: Path) -> Path:
    """The checkpoint in bfloat16."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, DTYPE))
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(directory).save_pretrained(target)
    return target


def variants(name: str, source: Path, work: Path, super_weights: dict) -> Iterator[Variant]:
    """The base, with an adapter, and with modules left as they are."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    base = write_packed(source, work / slug, dtype=DTYPE, **BASES[name])
    yield Variant(AS_IT_IS, base)
    adapter = work / f"{slug}-adapter"
    found = write_adapter(open_reader(base), open_reader(source), super_weights, adapter)
    yield Variant("adapter, kept in float32", base, adapter)
    yield Variant(f"adapter, kept in {DTYPE}", base, adapter, DTYPE)
    yield Variant(
        "ignore", write_packed(source, work / f"{slug}-ignore", dtype=DTYPE, **BASES[name], ignore=tuple(found.modules))
    )


def figures(
    name: str, variant: Variant, source: Path, super_weights: dict, text: TextWindows, before: Perplexity
) -> dict:
    """Bytes, super weights and quality of one variant."""
    seen = checked(variant, source, super_weights)
    after = scored(loaded(variant), text)
    test = paired(before, after)
    return {
        "base": name,
        "variant": variant.name,
        "bytes": size(variant.artefact),
        "adapter_bytes": size(variant.adapter) if variant.adapter else 0,
        "exact": sum(one.outcome == "exact" for one in seen.super_weights),
        "super_weights": len(seen.super_weights),
        "largest_change": max(abs(one.change or 0) for one in seen.super_weights),
        "perplexity": after.value,
        "change": [math.expm1(test.loss), math.expm1(test.interval[0]), math.expm1(test.interval[1])],
        "nll": after.nll,
    }


def checked(variant: Variant, source: Path, super_weights: dict) -> ArtefactCheck:
    """What its files hold, adapter included."""
    reader: Reader = open_reader(variant.artefact)
    if variant.adapter:
        reader = AdaptedReader(reader, Adapter(variant.adapter))
    return check(reader, open_reader(source), super_weights, Promise.of("exact"))


def loaded(variant: Variant) -> LoadedModel:
    """As transformers and PEFT load it."""
    dtype, path = getattr(torch, DTYPE), variant.artefact
    place = {"gguf_file": path.name} if path.is_file() else {}
    packed = not place and "quantization_config" in (path / "config.json").read_text()
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if packed else place
    directory = path.parent if place else path
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **how)
        if variant.adapter:
            from peft import PeftModel

            autocast = variant.kept == "float32"
            model = PeftModel.from_pretrained(model, variant.adapter, autocast_adapter_dtype=autocast).get_base_model()
    model.eval().requires_grad_(False)
    files = Checkpoint(path, str(path), "0" * 64)  # its hash is in no key here
    return LoadedModel(model, None, files, dtype, dtype, torch.device("cpu"))


def scored(model: LoadedModel, text: TextWindows) -> Perplexity:
    """Perplexity on the windows."""
    runner = ResidentModel(Scorer(model))
    scores = [score for batch in text.batches for score in score_batch(runner, text, batch)]
    return perplexity_figure(text, scores, vocabulary=runner.vocabulary, corpus=CORPUS)


def paired(before: Perplexity, after: Perplexity) -> PairedTest:
    """Nats a token more than the uncompressed model, window by window."""
    losses = [b - a for a, b in zip(before.nll, after.nll, strict=True)]
    design = ErrorBudget(alpha=0.025, early_share=0)
    return compare_means(losses, planned=len(losses), margin=0.0, design=design, places=after.index)


def size(path: Path) -> int:
    """Bytes of a file, or of all in a directory."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir())


def report(found: dict) -> str:
    """The table."""
    rows, before = [], 0
    for row in found["figures"]:
        before = row["bytes"] if row["variant"] == AS_IT_IS else before
        extra = row["bytes"] - before + row.get("adapter_bytes", 0) if row["base"] else 0
        rows.append(
            [
                row["base"] if row["variant"] in ("uncompressed", AS_IT_IS) else "",
                row["variant"],
                f"{row['bytes'] / 1e6:.2f}",
                f"{extra / 1e3:+,.1f}" if extra else "",
                f"{row['exact']} of {row['super_weights']}" if row["base"] else "",
                f"{row['largest_change']:.1%}" if row.get("largest_change") else "",
                f"{row['perplexity']:.3f}",
                _change(row["change"]) if row["base"] else "",
            ]
        )
    headers = ["base", "variant", "MB", "extra kB", "exact", "largest change", "perplexity", "change [95 %]"]
    number, length = found["windows"]
    about = f"{number} windows of {length} tokens of {CORPUS}, {DTYPE}"
    return f"Restoring super weights: {about}. {in_words(found['machine'])}\n\n{table(headers, rows)}"


def _change(change: list[float]) -> str:
    middle, low, high = change
    return f"{middle:+.2%} [{low:+.2%}, {high:+.2%}]"


if __name__ == "__main__":
    main()
