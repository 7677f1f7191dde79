"""Make openvino/*.xml, *.bin and values.json: down projections that NNCF compressed, and what OpenVINO multiplies with.

    python make_openvino.py

Needs openvino 2026.4.1, nncf 3.4.0 and torch. Values are those of the matrix as OpenVINO's CPU runtime uses it: the
MatMul is cut out and given unit vectors. Where NNCF scales the input too (`smooth`), they are times that.
"""

import base64
import json
import os
from pathlib import Path

os.environ.setdefault("CI", "true")  # telemetry tells nobody where that is set

import nncf
import numpy as np
import openvino
import torch

ROWS, COLUMNS, LAYER = 8, 64, 1
OUT = Path(__file__).parent / "openvino"
MODE = nncf.CompressWeightsMode
GROUPS = {"group_size": 32, "all_layers": True}
MODES = {
    "int8_asym": {"mode": MODE.INT8_ASYM},
    "int8_sym": {"mode": MODE.INT8_SYM},
    "int4_sym": {"mode": MODE.INT4_SYM, **GROUPS},
    "int4_asym": {"mode": MODE.INT4_ASYM, **GROUPS},
    "int3_sym": {"mode": MODE.INT3_SYM, **GROUPS},
    "nf4": {"mode": MODE.NF4, **GROUPS},
    "cb4": {"mode": MODE.CB4, **GROUPS},
    "nvfp4": {"mode": MODE.NVFP4, "all_layers": True},
}


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.down_proj = torch.nn.Linear(COLUMNS, ROWS, bias=False)

    def forward(self, gate, up):
        return self.down_proj(gate * up)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = Mlp()


class Model(torch.nn.Module):
    """Named as a language model is."""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList(Layer() for _ in range(LAYER + 1))

    def forward(self, gate, up):
        return self.model.layers[LAYER].mlp(gate, up)


def original():
    torch.manual_seed(0)
    model = Model().eval()
    weight = model.model.layers[LAYER].mlp.down_proj.weight
    with torch.no_grad():
        weight.normal_()
        weight[3, 40] = 9.0  # far from all others
    return model


def converted(model):
    inputs = (torch.ones(1, COLUMNS), torch.ones(1, COLUMNS))
    any_size = [openvino.PartialShape([-1, COLUMNS])] * 2
    return openvino.convert_model(model, example_input=inputs, input=any_size)


def smooth(model):
    random = np.random.default_rng(0)
    scale = np.where(np.arange(COLUMNS) % 7, 1, 50).astype(np.float32)
    samples = [[random.normal(size=(1, COLUMNS)).astype("f4") * scale, np.ones((1, COLUMNS), "f4")] for _ in range(8)]
    dataset = nncf.Dataset(samples)
    return nncf.quantize(converted(model), dataset, subset_size=8, model_type=nncf.ModelType.TRANSFORMER)


def used(path):
    """What the runtime multiplies with: (rows, columns)."""
    core = openvino.Core()
    model = core.read_model(path)
    product = next(one for one in model.get_ops() if one.get_type_name() == "MatMul")
    opset = openvino.opset13
    inputs = opset.parameter([-1, COLUMNS], openvino.Type.f32)
    alone = openvino.Model([opset.matmul(inputs, product.input_value(1), False, True)], [inputs], "alone")
    compiled = core.compile_model(alone, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = compiled(np.eye(COLUMNS, dtype=np.float32))[0].T
    scales = [one for one in model.get_ops() if "nncf_smooth_quant/scale" in one.get_friendly_name()]
    return values * (scales[0].data.reshape(1, COLUMNS) if scales else np.float32(1))


def save(name, model):
    path = OUT / f"{name}.xml"
    openvino.save_model(model, path, compress_to_fp16=name == "f16")
    return base64.b64encode(np.ascontiguousarray(used(path), "<f4").tobytes()).decode()


def main():
    OUT.mkdir(exist_ok=True)
    model = original()
    found = {"f16": save("f16", converted(model))}
    for name, options in MODES.items():
        found[name] = save(name, nncf.compress_weights(converted(model), **options))
    found["smooth"] = save("smooth", smooth(model))
    about = {"layer": LAYER, "rows": ROWS, "columns": COLUMNS, "values": found}
    (OUT / "values.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
