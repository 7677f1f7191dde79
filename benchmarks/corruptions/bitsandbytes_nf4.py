"""Rebuild a silent corruption: bitsandbytes saves 4-bit weights after a forward pass with scales in another order.

    python benchmarks/corruptions/bitsandbytes_nf4.py OUT [--model SOURCE] [--type fp4] [--text CORPUS]

On a CPU with AVX512-BF16 the first forward pass repacks each 4-bit weight for the CPU's kernel: codes interleaved,
scales in bfloat16 and transposed, `(columns / 64, rows)` instead of one after another. Saving puts the codes back and
leaves the scales. The file saves and loads, nothing raises, and every block is scaled by another block's scale; the
model in memory is ruined by the saving, too. Seen with bitsandbytes 0.50.2 and transformers 5.23.0; the scales are
forgotten in `bitsandbytes.functional._convert_weight_packed_for_cpu_inverse`.

Written are OUT/good, saved before a forward pass, and OUT/corrupt, saved after one; printed, what `superweight check`
says of both, and with a text the perplexity of the uncompressed model, of both files loaded again, and of the model
in memory before and after it was saved. Where the CPU lacks AVX512-BF16, the repacking of bitsandbytes is called by
itself, and that is said: the files are the same.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> int:
    options = _options()
    out, source = Path(options.out), _directory(options.model)
    text = _tokens(source, options) if options.text else None
    model = _quantised(source, options.type)
    _save(model, source, out / "good")
    found = {"versions": _versions(), "scales repacked by": _run(model)}
    if text is not None:
        found["perplexity"] = {"in memory": _perplexity(model, text)}
    _save(model, source, out / "corrupt")
    if text is not None:
        after = {"in memory, after saving": model, "uncompressed": _load(source)}
        found["perplexity"] |= {name: _perplexity(one, text) for name, one in after.items()}
        found["perplexity"] |= {name: _perplexity(_load(out / name), text) for name in ("good", "corrupt")}
    found["exit code of superweight check"] = {name: _check(out / name, options.model) for name in ("good", "corrupt")}
    print(json.dumps(found, indent=2))
    return 0


def _directory(argument):
    from superweight.cards import load_library
    from superweight.checkpoint import Cache, resolve

    return resolve(load_library(()).model(argument).source, Cache()).directory


def _load(directory, **how):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, **how).eval()


def _quantised(source, kind):
    from transformers import BitsAndBytesConfig

    return _load(source, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind))


def _run(model):
    """One forward pass, or what is lasting of it; says which."""
    import torch
    from bitsandbytes import functional

    if functional.has_avx512bf16():
        with torch.no_grad():
            model(torch.tensor([[1, 2, 3]]))
        return "a forward pass: this CPU has AVX512-BF16"
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if hasattr(weight, "quant_state"):
            weight.data, weight.quant_state = functional._convert_weight_packed_for_cpu(weight.data, weight.quant_state)
    return "bitsandbytes' own repacking, called by itself: this CPU lacks AVX512-BF16"


def _save(model, source, out):
    from transformers import AutoTokenizer

    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


def _check(artefact, reference):
    from superweight.cli import main as superweight

    return superweight(["check", str(artefact), "--reference", reference])


def _tokens(source, options):
    """Windows of 256 token ids from the text's middle."""
    from transformers import AutoTokenizer

    text = Path(options.text).read_text(encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(source)(text[len(text) // 2 :][: 20 * options.tokens]).input_ids
    return [ids[at : at + 256] for at in range(0, options.tokens, 256)]


def _perplexity(model, windows):
    import torch

    losses = []
    with torch.no_grad():
        for window in windows:
            ids = torch.tensor([window])
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    return float(torch.tensor(losses, dtype=torch.float64).mean().exp())


def _versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("bitsandbytes", "transformers", "torch")}


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", help="directory to write good and corrupt into")
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="card id or directory; default the embedded model"
    )
    parser.add_argument("--type", choices=("nf4", "fp4"), default="nf4", help="of the 4-bit codes")
    parser.add_argument("--text", help="a text to score from its middle")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens to score; default 1024")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
