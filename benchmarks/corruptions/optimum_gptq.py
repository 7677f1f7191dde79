"""Rebuild a silent corruption: optimum's GPTQ quantiser labels its file version 2 and stores version 1.

What is measured while the quantised model is in memory is fine. The file it saves says `gptq_v2` in config.json, `gptq`
in quantize_config.json, and its zero points are version 1's, one too low for what config.json says; transformers reads
config.json, and every weight comes back one step of its scale too high. Nothing raises.

    python benchmarks/corruptions/optimum_gptq.py MODEL OUT --python ENVIRONMENT/bin/python --text CORPUS

MODEL is a directory of an uncompressed Llama; the environment has optimum, gptqmodel and transformers. Seen with
optimum 2.3.0, gptqmodel 7.5.0 and transformers 5.23.0. Printed are the labels, what unit vectors give for some elements
in memory and after loading, and the perplexity of the text's middle, of the uncompressed model too.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

_SENTENCES = (
    "The river rises in the hills above the town and reaches the sea after a hundred miles of farmland and marsh.",
    "She closed the letter, set it beside the lamp, and waited for the sound of the carriage on the gravel.",
    "A compiler turns a program into instructions that a machine carries out one after another, in order.",
    "Bread needs flour, water, salt and time; of these the last is the one that most bakers try to save.",
)


def main():
    options = _options()
    if options.python:
        given = [argument for argument in sys.argv[1:] if argument != "--python" and argument != options.python]
        return subprocess.call([options.python, __file__, *given])
    text = Path(options.text).read_text(encoding="utf-8") if options.text else ""
    found = quantised(Path(options.model), _calibration(text, options.samples), options.group_size)
    scored = _scored(text, options)
    model = found.pop("model")
    found["uncompressed"] = _seen(_load(options.model), scored)
    found["in memory"] = _seen(model, scored)
    _save(model, found.pop("quantiser"), Path(options.model), Path(options.out))
    found["labels"] = {name: _label(Path(options.out) / name) for name in ("config.json", "quantize_config.json")}
    found["loaded again"] = _seen(_load(options.out), scored)
    print(json.dumps(found, indent=2))
    return 0


def quantised(source, calibration, group_size):
    """Quantise to 4 bits with optimum, the model in bfloat16."""
    import gptqmodel
    import optimum.version
    import torch
    import transformers
    from optimum.gptq import GPTQQuantizer

    gptqmodel._default_cpu_workers = lambda *_, **__: 2  # its pools ask for two workers, and get one on two cores
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    quantiser = GPTQQuantizer(bits=4, group_size=group_size, dataset=calibration, model_seqlen=128)
    quantiser.quantize_model(model, tokenizer)
    versions = {"optimum": optimum.version.__version__, "gptqmodel": gptqmodel.__version__}
    return {"versions": {**versions, "transformers": transformers.__version__}, "model": model, "quantiser": quantiser}


def _save(model, quantiser, source, out):
    import transformers

    quantiser.save(model, str(out))
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(out)


def _load(out):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(out, dtype="bfloat16")


def _seen(model, tokens):
    """What unit vectors give where the embedded model has its super weights, and the perplexity of the tokens."""
    import torch

    elements = {}
    for layer, row, column in ((11, 507, 1229), (2, 507, 90), (2, 507, 430), (11, 507, 1487)):
        if layer < len(model.model.layers):
            down = model.model.layers[layer].mlp.down_proj
            if row < down.out_features and column < down.in_features:
                unit = torch.zeros(1, 1, down.in_features, dtype=torch.bfloat16)
                unit[..., column] = 1
                with torch.no_grad():
                    elements[f"{layer}[{row}, {column}]"] = float(down(unit)[0, 0, row])
    return {"elements": elements, "perplexity": _perplexity(model, tokens)}


def _perplexity(model, tokens):
    import torch

    if not tokens:
        return None
    losses = []
    with torch.no_grad():
        for window in tokens:
            ids = torch.tensor([window])
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    return float(torch.tensor(losses, dtype=torch.float64).mean().exp())


def _scored(text, options):
    """Windows of token ids from the second half of a text."""
    if not text:
        return []
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(text[len(text) // 2 :][: 20 * options.tokens]).input_ids[: options.tokens]
    return [ids[at : at + 256] for at in range(0, len(ids) - 1, 256)]


def _calibration(text, samples):
    """Passages from the start of a text; without one, four sentences again and again."""
    if not text:
        return [" ".join([*_SENTENCES[turn:], *_SENTENCES[:turn]]) for turn in range(len(_SENTENCES))] * (samples // 4)
    return [text[at * 600 : at * 600 + 600] for at in range(samples)]


def _label(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    return found.get("quantization_config", found).get("format")


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="directory of the uncompressed model")
    parser.add_argument("out", help="directory to write")
    parser.add_argument("--python", help="python of the environment that has optimum and gptqmodel; default: this one")
    parser.add_argument("--text", help="a text to calibrate on, and to score from its middle")
    parser.add_argument("--samples", type=int, default=16, help="calibration passages; default 16")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens to score; default 1024")
    parser.add_argument("--group-size", type=int, default=64, help="columns that share a scale; default 64")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
