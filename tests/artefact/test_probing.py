"""The probe that other tests stand on finds the weights of modules whose weights are known."""

import torch
from transformers.pytorch_utils import Conv1D

from support.probing import effective_columns, effective_matrix, effective_weights, run_once


def _linear(bias):
    torch.manual_seed(3)
    return torch.nn.Linear(7, 5, bias=bias)


def test_a_linear_layer_without_bias_gives_its_own_weight():
    module = _linear(bias=False)
    assert torch.equal(effective_matrix(module, 7), module.weight.double())


def test_a_bias_is_taken_off():
    module = _linear(bias=True)
    assert torch.allclose(effective_matrix(module, 7), module.weight.double(), atol=1e-6)


def test_columns_come_in_the_order_asked_for_whatever_the_batch():
    module = _linear(bias=False)
    assert torch.equal(effective_columns(module, [6, 0, 3], 7, batch=2), module.weight.double()[:, [6, 0, 3]])


def test_an_input_major_module_is_asked_the_same_way():
    module = Conv1D(5, 7)
    torch.nn.init.zeros_(module.bias)
    assert torch.equal(effective_matrix(module, 7), module.weight.T.double())


def test_single_weights_of_a_model(make_loaded):
    model = make_loaded("llama").model
    run_once(model)
    name = "model.layers.1.mlp.down_proj"
    weight = model.get_submodule(name).weight
    assert effective_weights(model, [(name, 5, 7)]) == [float(weight[5, 7])]
