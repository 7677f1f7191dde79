"""GPTQ, AWQ and auto-round's own format, written by auto-round for the embedded model and loaded by it: all that loads
beside the gate's own versions. gptqmodel, which reads GPTQ for transformers, needs an environment of its own.
"""

import pytest

from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from support.probing import effective_columns

pytestmark = [pytest.mark.quantisers, pytest.mark.real]

SUPER_WEIGHTS = ((11, 507, 1229), (2, 507, 90), (2, 507, 430), (11, 507, 1487))
ROWS, COLUMNS = 576, 1536


def quantised(directory, out, form, **settings):
    """Round to nearest: no calibration, some twenty seconds."""
    auto_round = pytest.importorskip("auto_round")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="bfloat16")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    chosen = {"bits": 4, "group_size": 64, "iters": 0, "nsamples": 1, "seqlen": 32, "disable_opt_rtn": True} | settings
    auto_round.AutoRound(model, tokenizer, **chosen).quantize_and_save(str(out), format=form)
    return next(path.parent for path in out.rglob("config.json"))


def loaded(path, form):
    from transformers import AutoModelForCausalLM, AutoRoundConfig

    converted = {} if form == "auto_round" else {"quantization_config": AutoRoundConfig()}
    return AutoModelForCausalLM.from_pretrained(path, dtype="float32", **converted)


@pytest.mark.parametrize(
    ("form", "settings"),
    [("auto_gptq", {}), ("auto_gptq", {"bits": 3}), ("auto_awq", {"sym": False}), ("auto_round", {})],
)
def test_columns_of_super_weights_are_what_the_loaded_module_multiplies_by(form, settings, embedded, tmp_path):
    path = quantised(embedded.directory, tmp_path, form, **settings)
    reader, modules = open_reader(path), dict(loaded(path, form).named_modules())
    for layer, _, column in SUPER_WEIGHTS:
        module = modules[f"model.layers.{layer}.mlp.down_proj"]
        effective = effective_columns(module, [column], COLUMNS)[:, 0].tolist()
        for row in range(ROWS):
            found = reader.scalar(Coordinate(layer=layer, row=row, column=column)).decoded
            assert effective[row] == pytest.approx(found.value, abs=0.02 * found.step), (layer, row, column)
