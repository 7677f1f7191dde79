import subprocess
import sys

import pytest
import torch

from superweight.kernels import compiling
from superweight.kernels.compiling import compiler, fused, how

needs_compiler = pytest.mark.skipif(compiler("cpu") is not None, reason="no C++ compiler")


def doubled(x):
    return x * 2 + 1


X = torch.arange(6.0).view(2, 3)


def test_little_work_is_not_compiled(monkeypatch):
    monkeypatch.delenv("SUPERWEIGHT_COMPILE", raising=False)
    assert torch.equal(fused(doubled)(X), doubled(X))
    assert how() == "eager: no C++ compiler was found" or how() == "eager: compiling does not pay for so little work"


@needs_compiler
def test_much_work_is_compiled(monkeypatch):
    monkeypatch.delenv("SUPERWEIGHT_COMPILE", raising=False)
    monkeypatch.setitem(compiling.WORTHWHILE, "cpu", 13)
    function = fused(doubled)
    said = []
    for _ in range(4):
        assert torch.equal(function(X), doubled(X))
        said.append(how())
    assert [word.partition(":")[0].split()[0] for word in said] == ["eager", "eager", "compiled", "compiled"]
    assert how() == "compiled by inductor (C++)"


def test_never_compiled_when_told_not_to(monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "0")
    assert torch.equal(fused(doubled)(X), doubled(X))
    assert how() == "eager: SUPERWEIGHT_COMPILE=0"


def test_an_unknown_wish_is_an_error(monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "yes")
    with pytest.raises(ValueError, match="expected 0, 1 or auto"):
        fused(doubled)(X)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert torch.equal(fused(doubled)(X), doubled(X))
    assert how() == "eager: no C++ compiler was found"


def test_a_compiler_that_fails_is_not_asked_again(monkeypatch):
    asked = []

    def compile_badly(function):
        def fail(*args):
            asked.append(args)
            raise RuntimeError("g++: internal error\nand more")

        return fail

    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")
    monkeypatch.setattr(compiling, "compiler", lambda kind: None)
    monkeypatch.setattr(compiling, "_compile", compile_badly)
    function = fused(doubled)
    for _ in range(2):
        assert torch.equal(function(X), doubled(X))
        assert how() == "eager: compiling doubled failed (g++: internal error)"
    assert len(asked) == 1


def test_a_mistake_of_the_callers_is_raised(monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "0")
    with pytest.raises(RuntimeError, match="size"):
        fused(torch.add)(X, torch.zeros(5))


def test_importing_does_not_load_the_compiler():
    code = "import sys, superweight.kernels.rounding; print('torch._inductor.compile_fx' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
