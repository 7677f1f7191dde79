"""Every scalar of a file that compressed-tensors wrote is what its own decompression gives, bit for bit."""

import json

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import save_file

from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

MODULE = "model.layers.0.mlp.down_proj"


def weights(bits, kind="int", symmetric=True, strategy="group", **more):
    group = {"group_size": 16} if strategy in ("group", "tensor_group") else {}
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, **group, **more}


ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
MX = {"group_size": 32, "scale_dtype": "torch.uint8"}
SCHEMES = {
    **{
        f"int{bits}-{'sym' if symmetric else 'asym'}-{strategy}": {
            "weights": weights(bits, symmetric=symmetric, strategy=strategy)
        }
        for bits in range(2, 9)
        for symmetric in (True, False)
        for strategy in ("group", "channel")
    },
    "int4-sym-tensor": {"weights": weights(4, strategy="tensor")},
    "int4-asym-tensor": {"weights": weights(4, strategy="tensor", symmetric=False)},
    "w8a8-channel": {"weights": weights(8, strategy="channel"), "input_activations": ACTIVATIONS},
    "w8a8-asym-group": {"weights": weights(8, symmetric=False), "input_activations": ACTIVATIONS},
    "w8a8-asym-tensor": {"weights": weights(8, symmetric=False, strategy="tensor"), "input_activations": ACTIVATIONS},
    "w4a8-naive": {"weights": weights(4, strategy="channel"), "format": "naive-quantized"},
    "fp8-channel": {"weights": weights(8, "float", strategy="channel")},
    "fp8-tensor": {
        "weights": weights(8, "float", strategy="tensor"),
        "input_activations": ACTIVATIONS | {"type": "float"},
    },
    "fp8-group": {"weights": weights(8, "float")},
    "fp8-block": {"weights": weights(8, "float", strategy="block", block_structure=[16, 32])},
    "fp8-uneven-block": {"weights": weights(8, "float", strategy="block", block_structure=[7, 16])},
    "nvfp4": {"weights": weights(4, "float", strategy="tensor_group", scale_dtype="torch.float8_e4m3fn")},
    "mxfp4": {"weights": weights(4, "float", **MX)},
    "mxfp6": {"weights": weights(6, "float", **MX)},
    "mxfp8": {"weights": weights(8, "float", **MX)},
}


def scales(matrix, args):
    """Per tensor, row, group or block: the smallest and the largest weight it has to hold."""
    rows, columns = matrix.shape
    if args.strategy == "tensor":
        parts = matrix.reshape(1, 1, -1)
    elif args.strategy == "channel":
        parts = matrix.reshape(rows, 1, -1)
    elif args.strategy == "block":
        high, wide = args.block_structure
        padded = torch.nn.functional.pad(matrix, (0, -columns % wide, 0, -rows % high))
        parts = padded.unfold(0, high, high).unfold(1, wide, wide).flatten(2)
    else:
        parts = matrix.unfold(1, args.group_size, args.group_size)
    return parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)


def parameters(matrix, args, dtype):
    low, high = scales(matrix.float(), args)
    largest = {4: 6.0, 6: 7.5, 8: 424.0}[args.num_bits] if args.type == "float" else 2.0 ** (args.num_bits - 1) - 1
    if args.symmetric:
        scale = torch.maximum(low.abs(), high) / largest
        zero = None
    else:
        scale = (high - low) / (2**args.num_bits - 1)
        zero = (
            (-(2 ** (args.num_bits - 1)) - low / scale)
            .round()
            .clamp(-(2 ** (args.num_bits - 1)), 2 ** (args.num_bits - 1) - 1)
        )
    found = {"weight_scale": scale.to(dtype)}
    if args.scale_dtype is torch.uint8:
        found["weight_scale"] = torch.exp2(scale.log2().ceil()).to(dtype)
    if args.strategy == "tensor_group":
        found["weight_global_scale"] = (424.0 * largest / matrix.abs().max().float()).reshape(1)
        found["weight_scale"] = (scale * found["weight_global_scale"]).to(torch.float8_e4m3fn).to(dtype)
    if zero is not None:
        found["weight_zero_point"] = zero.to(torch.int8)
    return {name: value.reshape(1) if args.strategy == "tensor" else value for name, value in found.items()}


def compressed(case, matrix):
    """Tensors as the library compresses them, and as it gives them back."""
    scheme = QuantizationScheme(targets=["Linear"], **SCHEMES[case])
    scheme.format = scheme.format or infer_module_format(torch.nn.Linear, scheme)
    compressor = BaseCompressor.get_value_from_registry(getattr(scheme.format, "value", scheme.format))
    stored = compressor.compress({"weight": matrix, **parameters(matrix, scheme.weights, matrix.dtype)}, scheme)
    return stored, compressor.decompress(stored, scheme)["weight"], scheme


def write(directory, tensors, groups, **settings):
    """A directory as a loader expects it."""
    directory.mkdir(exist_ok=True)
    quantization = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "config_groups": groups,
        **settings,
    }
    config = {"model_type": "llama", "hidden_size": 24, "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        directory / "model.safetensors",
        {"format": "pt"},
    )
    return open_reader(directory)


def group(scheme, **changes):
    return json.loads(scheme.model_dump_json()) | changes


def normal(rows=24, columns=64, dtype=torch.bfloat16, seed=0):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    matrix[5, 7], matrix[6, columns - 1] = 9.0, -9.0
    return matrix.to(dtype)


def one_layer(directory, case, matrix=None, **changes):
    stored, back, scheme = compressed(case, normal() if matrix is None else matrix)
    tensors = {f"{MODULE}.{name}": value for name, value in stored.items()}
    settings = {"format": str(getattr(scheme.format, "value", scheme.format)), "ignore": ["lm_head"]}
    return write(directory, tensors | changes.pop("more", {}), {"group_0": group(scheme, **changes)}, **settings), back


def at(row, column):
    return Coordinate(layer=0, row=row, column=column)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("case", SCHEMES)
def test_whole_matrices_are_what_the_library_decompresses(case, dtype, tmp_path):
    reader, back = one_layer(tmp_path, case, normal(dtype=dtype))
    for row in range(0, back.shape[0], 1 if dtype is torch.bfloat16 else 5):
        found = [reader.scalar(at(row, column)).decoded for column in range(back.shape[1])]
        assert [one.value for one in found] == back[row].double().tolist()
        assert {one.dtype for one in found} == {str(back.dtype).removeprefix("torch.")}


@pytest.mark.parametrize(
    "case", ["int3-asym-group", "int4-sym-channel", "int5-asym-channel", "int7-sym-group", "w8a8-channel"]
)
def test_steps_lead_to_the_values_beside(case, tmp_path):
    """A grid of its own, from every code that occurs in the group: no value lies nearer than a step says."""
    reader, back = one_layer(tmp_path, case, normal(dtype=torch.float32))
    width = 16 if case.endswith("group") else 64
    row = back[5, :width].double()
    for column in range(width):
        found = reader.scalar(at(5, column)).decoded
        above, below = row[row > found.value], row[row < found.value]
        if len(above):
            assert found.value + found.upper <= above.min() + 1e-6
        if len(below):
            assert found.value - found.lower >= below.max() - 1e-6


def test_the_ends_of_a_range_are_told(tmp_path):
    reader, _ = one_layer(tmp_path, "int4-sym-group")
    top, bottom = reader.scalar(at(5, 7)).decoded, reader.scalar(at(6, 63)).decoded
    assert top.code == "7 of -8 to 7"
    assert top.ends_before(10.0)
    assert not top.ends_before(0.0)
    assert bottom.code == "-7 of -8 to 7"
    assert not bottom.ends_before(-10.0)


@pytest.mark.parametrize(("case", "number", "neighbours"), [("mxfp4", 9.0, 2), ("nvfp4", 9.0, 1), ("mxfp6", -9.0, 2)])
def test_floats_have_uneven_steps(case, number, neighbours, tmp_path):
    reader, back = one_layer(tmp_path, case)
    where = at(5, 7) if number > 0 else at(6, 63)
    found = reader.scalar(where).decoded
    finite = [gap for gap in (found.lower, found.upper) if gap < float("inf")]
    assert len(finite) == neighbours
    assert found.step == min(finite)
    assert found.value == back[where.row, where.column].item()


def test_ignored_modules_are_dense(tmp_path):
    matrix = normal()
    tensors = {f"{MODULE}.weight": matrix}
    _, _, scheme = compressed("int4-sym-group", matrix)
    for ignored in ([MODULE], ["re:.*down_proj"], ["layers.0.mlp.down_proj"], ["Linear"]):
        reader = write(tmp_path, tensors, {"group_0": group(scheme)}, format="pack-quantized", ignore=ignored)
        found = reader.scalar(at(5, 7))
        assert (found.decoded.value, found.stored_as) == (9.0, "bfloat16")


def test_groups_go_by_name_then_pattern_then_class(tmp_path):
    """The library's order: what a module is called comes before a pattern, and that before its class."""
    matrix = normal()
    stored, back, eight = compressed("int8-asym-group", matrix)
    _, _, four = compressed("int4-sym-group", matrix)
    tensors = {f"{MODULE}.{name}": value for name, value in stored.items()}
    wrong = group(four, targets=["Linear"])
    for targets in ([MODULE], ["re:.*down_proj$"]):
        groups = {"group_0": wrong, "group_1": group(eight, targets=targets)}
        reader = write(tmp_path, tensors, groups, format="mixed-precision")
        assert reader.scalar(at(6, 63)).decoded.value == back[6, 63].item()
    groups = {"group_0": group(four, targets=["re:.*"]), "group_1": group(eight, targets=[MODULE])}
    assert write(tmp_path, tensors, groups).scalar(at(6, 63)).decoded.value == back[6, 63].item()


def test_columns_may_be_in_another_order(tmp_path):
    """Groups of columns that GPTQ reordered: each column's group is in weight_g_idx, and the library's own function
    decodes the matrix once its columns are back in the order of the groups."""
    matrix = normal(dtype=torch.float32)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    stored, back, _ = compressed("int4-asym-group", matrix[:, order])
    codes = _unpacked(stored)[:, order.argsort()]
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    more = {
        f"{MODULE}.weight_packed": pack_to_int32(codes.to(torch.int8), 4),
        f"{MODULE}.weight_g_idx": torch.div(order.argsort(), 16, rounding_mode="floor").to(torch.int32),
    }
    said = weights(4, symmetric=False, actorder="group") | {"dynamic": False}
    reader, _ = one_layer(tmp_path, "int4-asym-group", matrix[:, order], more=more, weights=said)
    expected = back[:, order.argsort()]
    for row, column in [(0, 0), (5, 7), (6, 63), (22, 31), (20, 40)]:
        assert reader.scalar(at(row, column)).decoded.value == expected[row, column].item()
    plain, _ = one_layer(tmp_path, "int4-asym-group", matrix[:, order], more=more)
    assert isinstance(plain.scalar(at(5, 7)), CannotTell)


def _unpacked(stored):
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    return unpack_from_int32(stored["weight_packed"], 4, torch.Size(stored["weight_shape"].tolist()))


def damaged(directory, case, **changes):
    """A layer whose tensors were changed: None takes one away."""
    stored, _, scheme = compressed(case, normal())
    tensors = {f"{MODULE}.{name}": value for name, value in stored.items()}
    tensors |= {f"{MODULE}.{name}": value for name, value in changes.items() if value is not None}
    for name in [name for name, value in changes.items() if value is None]:
        del tensors[f"{MODULE}.{name}"]
    return write(
        directory, tensors, {"group_0": group(scheme)}, format=str(getattr(scheme.format, "value", scheme.format))
    )


DAMAGE = {
    "no scale": ("int4-sym-group", {"weight_scale": None}),
    "no codes": ("int4-sym-group", {"weight_packed": None}),
    "codes twice": ("int4-sym-group", {"weight": torch.zeros(24, 64)}),
    "scales of fewer rows": ("int4-sym-group", {"weight_scale": torch.ones(12, 4)}),
    "scales of other groups": ("int4-sym-group", {"weight_scale": torch.ones(24, 8)}),
    "a scale a column": ("int4-sym-channel", {"weight_scale": torch.ones(64, 1)}),
    "whole numbers as scales": ("int4-sym-group", {"weight_scale": torch.ones(24, 4, dtype=torch.int32)}),
    "float8 scales": ("int4-sym-group", {"weight_scale": torch.ones(24, 4).to(torch.float8_e4m3fn)}),
    "words of 64 bits": ("int4-sym-group", {"weight_packed": torch.zeros(24, 8, dtype=torch.int64)}),
    "fewer words": ("int4-sym-group", {"weight_packed": torch.zeros(24, 7, dtype=torch.int32)}),
    "another shape": ("int4-sym-group", {"weight_shape": torch.tensor([24, 65])}),
    "no shape": ("int4-sym-group", {"weight_shape": None}),
    "three dimensions": ("int4-sym-group", {"weight_packed": torch.zeros(2, 24, 8, dtype=torch.int32)}),
    "zero points of what is symmetric": ("int4-sym-group", {"weight_zero_point": torch.ones(3, 4, dtype=torch.int32)}),
    "no zero points": ("int4-asym-group", {"weight_zero_point": None}),
    "zero points that are not packed": ("int4-asym-group", {"weight_zero_point": torch.zeros(24, 4, dtype=torch.int8)}),
    "zero points of fewer rows": ("int4-asym-group", {"weight_zero_point": torch.zeros(2, 4, dtype=torch.int32)}),
    "float codes": ("w8a8-channel", {"weight": torch.zeros(24, 64)}),
    "float8 for int8": ("w8a8-channel", {"weight": torch.zeros(24, 64).to(torch.float8_e4m3fn)}),
    "int8 for float8": ("fp8-channel", {"weight": torch.zeros(24, 64, dtype=torch.int8)}),
    "no global scale": ("nvfp4", {"weight_global_scale": None}),
    "scales that are no exponents": ("mxfp4", {"weight_scale": torch.ones(24, 2)}),
    "an order that names no group": ("int4-sym-group", {"weight_g_idx": torch.full((64,), 9, dtype=torch.int32)}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_does_not_fit_its_settings_is_never_a_number(what, tmp_path):
    case, changes = DAMAGE[what]
    reader = damaged(tmp_path, case, **changes)
    assert all(MODULE in why_not(reader, where) for where in (at(23, 63), at(0, 0)))
    assert reader.about


def why_not(reader, where):
    try:
        found = reader.scalar(where)
    except InfraError as error:
        return str(error) if error.reason in ("corrupt", "missing-tensor") else ""
    return found.reason if isinstance(found, CannotTell) else ""


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "marlin-24"},
        {"format": "something-new"},
        {"config_groups": {"W4A16": ["Linear"]}},
        {"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": "four"}}}},
        {"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 9}}}},
        {"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "spiral"}}}},
        {"config_groups": {"group_0": {"targets": ["re:(", "Embedding"], "weights": {"num_bits": 4}}}},
        {"config_groups": {}},
        {"config_groups": ["Linear"]},
        {"ignore": [MODULE]},
        {"transform_config": {"config_groups": {"R1": {"type": "hadamard"}}}},
        {"quant_method": "modelopt"},
    ],
)
def test_settings_that_nobody_knows_tell_nothing(settings, tmp_path):
    stored, _, scheme = compressed("int4-sym-group", normal())
    tensors = {f"{MODULE}.{name}": value for name, value in stored.items()}
    known = {"format": "pack-quantized", "config_groups": {"group_0": group(scheme)}} | settings
    known["config_groups"] = (
        {"group_0": group(scheme, format=settings["format"])} if "format" in settings else known["config_groups"]
    )
    reader = write(tmp_path, tensors, known.pop("config_groups"), **known)
    assert isinstance(reader.scalar(at(5, 7)), CannotTell)


def test_what_should_be_quantised_and_is_not_tells_nothing(tmp_path):
    """A loader looks for codes there, and makes up what it does not find."""
    _, _, scheme = compressed("int4-sym-group", normal())
    reader = write(tmp_path, {f"{MODULE}.weight": normal()}, {"group_0": group(scheme)}, format="pack-quantized")
    assert isinstance(reader.scalar(at(5, 7)), CannotTell)


def test_weights_that_are_quantised_when_they_run_tell_nothing(tmp_path):
    matrix = normal()
    _, _, scheme = compressed("int4-sym-group", matrix)
    tensors = {f"{MODULE}.weight": matrix, f"{MODULE}.weight_scale": torch.ones(24, 4)}
    reader = write(tmp_path, tensors, {"group_0": group(scheme)}, format="dense", quantization_status="frozen")
    assert isinstance(reader.scalar(at(5, 7)), CannotTell)


@pytest.mark.real
@pytest.mark.parametrize("case", ["int3-asym-group", "int4-sym-channel", "w8a8-channel", "fp8-block", "nvfp4"])
def test_a_real_matrix_row_by_row_and_column_by_column(case, embedded, tmp_path):
    matrix = embedded.read("model.layers.2.mlp.down_proj.weight").bfloat16()
    reader, back = one_layer(tmp_path, case, matrix)
    for row in (0, 507, 575):
        assert [reader.scalar(at(row, column)).decoded.value for column in range(1536)] == back[row].double().tolist()
    for column in (90, 430, 1535):
        assert [reader.scalar(at(row, column)).decoded.value for row in range(576)] == back[:, column].double().tolist()
