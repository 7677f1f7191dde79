"""Files that bitsandbytes, torchao and quanto write here: scalars, loaded modules and verdicts on the embedded model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superweight.artefact.check import check
from superweight.artefact.formats import Place, format_of
from superweight.artefact.reading import open_reader
from superweight.cards import load_library
from superweight.cards.promise import Promise
from support.probing import effective_columns, run_once

pytestmark = [pytest.mark.quantisers, pytest.mark.real]

CORRUPTION = Path(__file__).parents[2] / "benchmarks" / "corruptions" / "bitsandbytes_nf4.py"
MODULE = "model.layers.11.mlp.down_proj"
SKIPPED = ["lm_head", "model.layers.2.mlp.down_proj", MODULE]
ROWS = (0, 31, 300, 507, 575)


def nf4(**more):
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} | more))


def torchao(name, **more):
    import torchao.quantization
    from transformers import TorchAoConfig

    return TorchAoConfig(getattr(torchao.quantization, name)(**more))


def int4():
    from torchao.quantization import PerGroup

    return torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=PerGroup(64))


TRANSFORMERS = {
    "nf4": lambda: nf4(),
    "nf4 nested": lambda: nf4(bnb_4bit_use_double_quant=True),
    "nf4 in bfloat16": lambda: nf4(bnb_4bit_quant_storage=torch.bfloat16),
    "fp4": lambda: nf4(bnb_4bit_quant_type="fp4"),
    "int8": lambda: nf4(load_in_4bit=False, load_in_8bit=True),
    "torchao int8": lambda: torchao("Int8WeightOnlyConfig"),
    "torchao int8 dynamic": lambda: torchao("Int8DynamicActivationInt8WeightConfig"),
    "torchao int4": int4,
    "torchao float8": lambda: torchao("Float8WeightOnlyConfig"),
}
QUANTO = {"quanto int8": "qint8", "quanto int4": "qint4", "quanto float8": "qfloat8"}


def make(source, name, path):
    """Quantise the embedded model in bfloat16, save it and load it again."""
    from transformers import AutoModelForCausalLM

    if name in QUANTO:
        from optimum.quanto import QuantizedModelForCausalLM, qtypes

        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
        QuantizedModelForCausalLM.quantize(model, weights=qtypes[QUANTO[name]], exclude="lm_head").save_pretrained(path)
        return QuantizedModelForCausalLM.from_pretrained(path)._wrapped
    how = {"quantization_config": TRANSFORMERS[name](), "dtype": torch.bfloat16}
    AutoModelForCausalLM.from_pretrained(source, **how).save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()


def decoded(weight):
    """The library's own decoding of a loaded weight."""
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    if weight.dtype == torch.int8:
        return torch.ops.bitsandbytes.int8_vectorwise_dequant(weight.data, weight.SCB)
    return weight.dequantize()


def judged(path, embedded, promise="within-step"):
    card = load_library(()).model("smollm2-135m-instruct")
    where = {weight.coordinate: weight.status for weight in card.super_weights}
    return check(open_reader(path), open_reader(embedded.directory), where, Promise.of(promise))


@pytest.mark.parametrize("name", [*TRANSFORMERS, *QUANTO])
def test_a_file_is_read_as_the_library_decodes_it_and_as_the_module_multiplies(embedded, tmp_path, name):
    model = make(embedded.directory, name, tmp_path / "x")
    module = model.get_submodule(MODULE)
    library = decoded(module.weight)[list(ROWS)].double()
    artefact = open_reader(tmp_path / "x").artefact
    held = format_of(artefact, MODULE)
    own = [[held.scalar(artefact, Place(MODULE, row, column)).value for column in range(1536)] for row in ROWS]
    assert torch.equal(torch.tensor(own, dtype=torch.float64), library)
    run_once(model)
    columns = [0, 90, 1229, 1487]
    probed = effective_columns(module, columns, 1536, torch.bfloat16)[list(ROWS)]
    bound = 2**-7 * library.abs().amax(1, keepdim=True)  # kernels round scales, and sums, to bfloat16
    assert ((probed - library[:, columns]).abs() <= bound).all()
    found = judged(tmp_path / "x", embedded)
    assert {weight.outcome for weight in found.super_weights} <= {"exact", "within-step"}
    assert not found.findings
    assert not found.unchecked


def test_modules_that_are_skipped_keep_their_super_weights(embedded, tmp_path):
    from transformers import AutoModelForCausalLM

    how = {"quantization_config": nf4(llm_int8_skip_modules=SKIPPED), "dtype": torch.float32}
    AutoModelForCausalLM.from_pretrained(embedded.directory, **how).save_pretrained(tmp_path / "x")
    found = judged(tmp_path / "x", embedded, "exact")
    assert {weight.outcome for weight in found.super_weights} == {"exact"}
    assert not found.findings


def test_bitsandbytes_ruins_a_file_saved_after_a_forward_pass_and_check_says_so(tmp_path):
    run = subprocess.run([sys.executable, CORRUPTION, tmp_path], capture_output=True, text=True, check=True)
    assert '"good": 0' in run.stdout
    assert '"corrupt": 1' in run.stdout
    for value in ("0.4492188", "0.5234375", "-0.59375", "0.6757812"):  # those of another order of scales
        assert value in run.stdout
    assert "bnb-absmax-shape" in run.stdout
