"""Makes tests/data/artefacts/gptq, in two environments: `PYTHONPATH=tests python …/make_gptq.py auto-round`, then another.

The first needs auto-round; the other is `gptqmodel`, and needs gptqmodel and optimum. Beside each file lies what the
tool's own module makes of it. `optimum-mislabelled` is what optimum's quantiser saves. `awq-gemv` is packed by
gptqmodel's module for GPUs, which packs on a CPU, too; what it stands for is worked out here.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from support.cut_artefacts import COLUMNS, MODULE, ROWS, dense, expected

HERE = Path(__file__).parent / "gptq"
GROUP = 32
WORDS = [f"w{number}" for number in range(60)]
_NOT_SETTINGS = ("dataset", "meta", "offload_to_disk_path")  # calibration texts, and places on a machine

AUTO_ROUND = {  # name: format, bits, symmetric, group size
    "auto-gptq-2": ("auto_gptq", 2, True, GROUP),
    "auto-gptq-3-asymmetric": ("auto_gptq", 3, False, GROUP),
    "auto-gptq-4": ("auto_gptq", 4, True, GROUP),
    "auto-gptq-4-asymmetric-rows": ("auto_gptq", 4, False, -1),
    "auto-gptq-8": ("auto_gptq", 8, True, GROUP),
    "auto-round-2-asymmetric": ("auto_round", 2, False, GROUP),
    "auto-round-3": ("auto_round", 3, True, GROUP),
    "auto-round-5-asymmetric": ("auto_round", 5, False, GROUP),
    "auto-awq": ("auto_awq", 4, True, GROUP),
    "auto-awq-asymmetric": ("auto_awq", 4, False, GROUP),
    "auto-round-awq-6-asymmetric": ("auto_round:auto_awq", 6, False, GROUP),
}
GPTQMODEL = {
    "gptqmodel-v1-3-ordered": {"bits": 3, "desc_act": True},
    "gptqmodel-v1-4-asymmetric": {"bits": 4, "sym": False},
    "gptqmodel-v2-3": {"bits": 3, "format": "gptq_v2"},
    "gptqmodel-v2-4": {"bits": 4, "format": "gptq_v2"},
    "gptqmodel-v2-8-asymmetric": {"bits": 8, "sym": False, "format": "gptq_v2"},
    "gptqmodel-planes-3": {"bits": 3, "format": "gptq_p"},
}
OPTIMUM = {
    "optimum-mislabelled": {"bits": 4, "sym": True},
    "optimum-4-asymmetric-ordered": {"bits": 4, "sym": False, "desc_act": True, "act_group_aware": False},
}


def source(directory):
    """The uncompressed model, with a tokenizer of a few words."""
    dense().save_pretrained(directory)
    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", "<unk>", "<pad>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(directory)


def texts():
    torch.manual_seed(0)
    return [" ".join(WORDS[at] for at in torch.randint(0, len(WORDS), (64,)).tolist()) for _ in range(8)]


def keep(saved, name, matrix):
    """Cut what a tool saved to one module, with its settings, and say what the tool makes of it, `(rows, columns)`."""
    target = HERE / name
    target.mkdir(parents=True, exist_ok=True)
    save_file({f"{MODULE}.{leaf}": tensor for leaf, tensor in parts(saved).items()}, target / "model.safetensors")
    for file in ("config.json", "quantize_config.json"):
        if (saved / file).is_file():
            content = json.loads((saved / file).read_text())
            settings = content.get("quantization_config", content)
            for key in _NOT_SETTINGS:
                settings.pop(key, None)
            _write(target / file, content)
    _write(target / "expected.json", expected(matrix + 0.0))  # no negative zeros, which negative scales make


def _write(path, content):
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def parts(saved):
    found = load_file(saved / "model.safetensors")
    return {name.rpartition(".")[2]: tensor for name, tensor in found.items() if name.startswith(f"{MODULE}.")}


def auto_round(uncompressed, name):
    from auto_round import AutoRound

    form, bits, symmetric, group = AUTO_ROUND[name]
    model = AutoModelForCausalLM.from_pretrained(uncompressed)
    tokenizer = AutoTokenizer.from_pretrained(uncompressed)
    settings = {"bits": bits, "group_size": group, "sym": symmetric, "iters": 0, "nsamples": 1, "seqlen": 32}
    with tempfile.TemporaryDirectory() as work:
        AutoRound(model, tokenizer, disable_opt_rtn=True, **settings).quantize_and_save(work, format=form)
        saved = next(path.parent for path in Path(work).rglob("model.safetensors"))
        keep(saved, name, decoded_by_auto_round(saved))


def decoded_by_auto_round(saved):
    from auto_round.export.export_to_awq.utils import dequantize_gemm
    from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp

    settings, tensors = json.loads((saved / "config.json").read_text())["quantization_config"], parts(saved)
    group = COLUMNS if settings["group_size"] == -1 else settings["group_size"]
    form = settings.get("packing_format", settings["quant_method"])
    if "awq" in form:
        return dequantize_gemm(*(tensors[leaf] for leaf in ("qweight", "qzeros", "scales")), settings["bits"], group).T
    module = (qlinear_torch if form == "auto_round" else qlinear_torch_zp).QuantLinear
    linear = module(settings["bits"], group, COLUMNS, ROWS, False)
    for leaf in ("qweight", "qzeros", "scales"):
        setattr(linear, leaf, tensors[leaf])
    with torch.no_grad():
        return linear(torch.eye(COLUMNS, dtype=torch.float16)).T


def gptqmodel(uncompressed, name):
    import gptqmodel

    settings = {"group_size": GROUP, "sym": True, "desc_act": False} | GPTQMODEL[name]
    model = gptqmodel.GPTQModel.load(str(uncompressed), gptqmodel.QuantizeConfig(**settings), dtype=torch.float16)
    model.quantize(texts(), batch_size=1)
    with tempfile.TemporaryDirectory() as work:
        model.save(work)
        keep(Path(work), name, decoded_by_gptqmodel(Path(work)))


def optimum(uncompressed, name):
    from optimum.gptq import GPTQQuantizer

    settings = {"group_size": GROUP, "desc_act": False} | OPTIMUM[name]
    model = AutoModelForCausalLM.from_pretrained(uncompressed, dtype=torch.float16)
    quantiser = GPTQQuantizer(dataset=texts(), model_seqlen=64, **settings)
    quantiser.quantize_model(model, AutoTokenizer.from_pretrained(uncompressed))
    with tempfile.TemporaryDirectory() as work:
        quantiser.save(model, work)
        keep(Path(work), name, decoded_by_gptqmodel(Path(work)))


def decoded_by_gptqmodel(saved):
    """By the label that transformers obeys, config.json's."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import FORMAT
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    said, tensors = json.loads((saved / "config.json").read_text())["quantization_config"], parts(saved)
    label = said.get("checkpoint_format", said.get("format", "gptq"))
    shape = {"in_features": COLUMNS, "out_features": ROWS, "group_size": said["group_size"], "bits": said["bits"]}
    linear = TorchLinear(sym=said["sym"], desc_act=said["desc_act"], format=FORMAT(label), **shape).eval()
    for leaf, tensor in tensors.items():
        setattr(linear, leaf, tensor)
    linear._init_wf_unsqueeze_buffers()
    if label == "gptq":
        convert_gptq_v1_to_v2_format_module(linear, said["bits"], torch.int32)
    return linear.dequantize_weight().T


def gemv():
    """Codes, zero points and scales, packed by gptqmodel's module, which takes 64 rows and more; half of them kept."""
    from gptqmodel.nn_modules.qlinear.gemv_awq import AwqGEMVLinear

    rows, size = 2 * ROWS, 64
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 16, (rows, COLUMNS), generator=generator)
    zeros = torch.randint(0, 16, (rows, COLUMNS // size), generator=generator).float()
    scales = (torch.rand(rows, COLUMNS // size, generator=generator) + 0.5).half()
    linear = torch.nn.Linear(COLUMNS, rows, bias=False)
    linear.weight.data = (codes - zeros.repeat_interleave(size, 1)) * scales.float().repeat_interleave(size, 1)
    module = AwqGEMVLinear(4, size, False, False, COLUMNS, rows, register_buffers=True)
    module.pack(linear, scales.float(), zeros)
    target = HERE / "awq-gemv"
    target.mkdir(parents=True, exist_ok=True)
    packed = {leaf: getattr(module, leaf)[:ROWS].contiguous() for leaf in ("qweight", "qzeros", "scales")}
    save_file({f"{MODULE}.{leaf}": tensor for leaf, tensor in packed.items()}, target / "model.safetensors")
    settings = {"quant_method": "awq", "bits": 4, "group_size": size, "zero_point": True, "version": "gemv"}
    config = json.loads((HERE.parent / "reference" / "config.json").read_text())
    _write(target / "config.json", {**config, "quantization_config": settings})
    _write(target / "expected.json", expected(linear.weight.data[:ROWS].half()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        source(work)
        if sys.argv[1] == "auto-round":
            for each in AUTO_ROUND:
                auto_round(work, each)
        else:
            import gptqmodel as package

            package._default_cpu_workers = lambda *_, **__: 2  # its pools ask for two workers, whatever there is
            for each in GPTQMODEL:
                gptqmodel(work, each)
            for each in OPTIMUM:
                optimum(work, each)
            gemv()
