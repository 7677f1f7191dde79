"""float8 in blocks and the experts of gpt-oss, element by element beside transformers' own decoders."""

import json

import pytest
import torch
from safetensors.torch import save_file

from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.forward.runner import CannotTell

DOWN = "model.layers.0.mlp.down_proj"
EXPERTS = "model.layers.0.mlp.experts.down_proj"


def opened(directory, tensors, **settings):
    directory.mkdir(exist_ok=True)
    config = {"model_type": "llama", "hidden_size": 24, "quantization_config": settings}
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return open_reader(directory)


def float8(rows=24, columns=64, block=(8, 16), dtype=torch.float32):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    scale = torch.rand(grid, generator=torch.Generator().manual_seed(1)) + 0.5
    scale = scale.log2().round().add(127).to(torch.uint8) if dtype is torch.uint8 else (scale / 100).to(dtype)
    return {f"{DOWN}.weight": (matrix * 100).to(torch.float8_e4m3fn), f"{DOWN}.weight_scale_inv": scale}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("block", [(8, 16), (24, 64), (1, 32)])
def test_blocks_of_float8_are_what_transformers_decodes(block, dtype, tmp_path):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    tensors = float8(block=block, dtype=dtype)
    reader = opened(tmp_path, tensors, quant_method="fp8", weight_block_size=list(block))
    expected = Fp8Dequantize(None)._dequantize_one(tensors[f"{DOWN}.weight"], tensors[f"{DOWN}.weight_scale_inv"])
    for row in range(24):
        found = [reader.scalar(Coordinate(layer=0, row=row, column=column)).decoded for column in range(64)]
        assert [one.value for one in found] == expected[row].double().tolist()
    assert reader.about == f"float8, blocks of {block[0]} × {block[1]}"


def test_blocks_that_do_not_divide_the_matrix_end_with_it(tmp_path):
    tensors = float8(block=(10, 48))
    reader = opened(tmp_path, tensors, quant_method="fp8", weight_block_size=[10, 48])
    for row, column in [(0, 0), (9, 47), (10, 48), (23, 63)]:
        code = tensors[f"{DOWN}.weight"][row, column].float()
        expected = code * tensors[f"{DOWN}.weight_scale_inv"][row // 10, column // 48]
        assert reader.scalar(Coordinate(layer=0, row=row, column=column)).decoded.value == expected.item()


UNFIT = {
    "no blocks": {"weight_block_size": None},
    "other blocks": {"weight_block_size": [16, 16]},
    "no numbers": {"weight_block_size": ["a", 16]},
    "another method": {"quant_method": "fbgemm_fp8"},
}


@pytest.mark.parametrize("what", UNFIT)
def test_blocks_that_the_settings_do_not_bear_out_tell_nothing(what, tmp_path):
    reader = opened(tmp_path, float8(), **({"quant_method": "fp8", "weight_block_size": [8, 16]} | UNFIT[what]))
    assert isinstance(reader.scalar(Coordinate(layer=0, row=3, column=5)), CannotTell)
    assert reader.about


@pytest.mark.parametrize("leaf", ["weight_scale", "input_scale"])
def test_tensors_that_nobody_knows_tell_nothing(leaf, tmp_path):
    tensors = float8() | {f"{DOWN}.{leaf}": torch.ones(1)}
    reader = opened(tmp_path, tensors, quant_method="fp8", weight_block_size=[8, 16])
    assert isinstance(reader.scalar(Coordinate(layer=0, row=3, column=5)), CannotTell)


def experts(count=3, rows=24, groups=2):
    generator = torch.Generator().manual_seed(2)
    return {
        f"{EXPERTS}_blocks": torch.randint(0, 256, (count, rows, groups, 16), generator=generator).to(torch.uint8),
        f"{EXPERTS}_scales": torch.randint(118, 132, (count, rows, groups), generator=generator).to(torch.uint8),
    }


def test_the_experts_of_gpt_oss_are_what_transformers_decodes(tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    tensors = experts()
    reader = opened(tmp_path, tensors, quant_method="mxfp4")
    matrices = convert_moe_packed_tensors(tensors[f"{EXPERTS}_blocks"], tensors[f"{EXPERTS}_scales"])
    assert matrices.shape == (3, 64, 24)  # (experts, in, out)
    for expert in range(3):
        for row in range(24):
            where = [Coordinate(layer=0, expert=expert, row=row, column=column) for column in range(64)]
            assert [reader.scalar(one).decoded.value for one in where] == matrices[expert, :, row].double().tolist()
    assert reader.about == "MXFP4, groups of 32"


@pytest.mark.parametrize(
    "changes",
    [
        {f"{EXPERTS}_blocks": torch.zeros(3, 24, 2, 8, dtype=torch.uint8)},
        {f"{EXPERTS}_scales": torch.zeros(3, 24, 4, dtype=torch.uint8)},
        {f"{EXPERTS}_scales": torch.zeros(3, 24, 2)},
    ],
)
def test_experts_of_another_shape_tell_nothing(changes, tmp_path):
    reader = opened(tmp_path, experts() | changes, quant_method="mxfp4")
    assert isinstance(reader.scalar(Coordinate(layer=0, expert=0, row=3, column=5)), CannotTell)


def test_outside_of_the_experts_nothing_is_told(tmp_path):
    reader = opened(tmp_path, experts(), quant_method="mxfp4")
    for expert, row, column in [(3, 0, 0), (0, 24, 0), (0, 0, 64), (None, 0, 0)]:
        assert isinstance(reader.scalar(Coordinate(layer=0, expert=expert, row=row, column=column)), CannotTell)
