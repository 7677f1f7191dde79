"""What figures depend on is in their key, so that none is served after any of it changed."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch

import superweight
from superweight.measure import arithmetic, keys

ROOT = Path(superweight.__file__).parent
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reached():
    """Files of this library that measuring imports, and everything that it imports late."""
    code = (
        "import sys, superweight.measure, superweight.evaluate.lm, superweight.evaluate.tasks, superweight.compress;"
        "import json; print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'superweight' and m.__file__]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [Path(file).relative_to(ROOT) for file in json.loads(run.stdout.splitlines()[-1])]


def test_every_module_that_measuring_reaches_is_in_the_key_or_said_not_to_matter(reached, tmp_path):
    """A changed file of any package, but for those that are listed, is another code."""
    packages = {path.parts[0] for path in reached}
    assert {"kernels", "checkpoint", "detect", "compress", "evaluate", "measure"} <= packages
    copy = shutil.copytree(ROOT, tmp_path / "superweight", ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
    before = keys.source_digest(copy, keys.NOT_IN_FIGURES, keys.IN_FIGURES)
    assert before == keys.code_version()
    for package in sorted(packages):
        path = copy / next(path for path in reached if path.parts[0] == package and "methods" not in path.parts)
        text = path.read_text()
        path.write_text(text + "\n# another\n")
        after = keys.source_digest(copy, keys.NOT_IN_FIGURES, keys.IN_FIGURES)
        assert (after == before) == (package in keys.NOT_IN_FIGURES), package
        path.write_text(text)


def test_what_a_kind_of_recipe_says_of_itself_is_in_the_key(tmp_path):
    copy = shutil.copytree(ROOT, tmp_path / "superweight", ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
    before = keys.source_digest(copy, keys.NOT_IN_FIGURES, keys.IN_FIGURES)
    for module, matters in (("cards/methods/rounding.py", True), ("cards/gate.py", False)):
        text = (copy / module).read_text()
        (copy / module).write_text(text + "\n# another\n")
        assert (keys.source_digest(copy, keys.NOT_IN_FIGURES, keys.IN_FIGURES) != before) == matters
        (copy / module).write_text(text)


def test_a_package_that_is_added_later_is_in_the_key(tmp_path):
    copy = shutil.copytree(ROOT, tmp_path / "superweight", ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
    before = keys.source_digest(copy, keys.NOT_IN_FIGURES)
    (copy / "another").mkdir()
    (copy / "another" / "runner.py").write_text("")
    assert keys.source_digest(copy, keys.NOT_IN_FIGURES) != before


def test_what_does_not_matter_exists():
    assert [name for name in keys.NOT_IN_FIGURES if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("MKL_CBWR", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", True),
        ("DNNL_MAX_CPU_ISA", True),
        ("ATEN_CPU_CAPABILITY", True),
        ("NVIDIA_TF32_OVERRIDE", True),
        ("CUBLAS_WORKSPACE_CONFIG", True),
        ("SUPERWEIGHT_COMPILE", True),
        ("TORCH_BLAS_PREFER_CUBLASLT", True),
        ("SUPERWEIGHT_CACHE", False),
        ("TORCH_LOGS", False),
        ("PYTORCH_CUDA_ALLOC_CONF", False),
        ("HOME", False),
    ],
)
def test_variables_that_change_arithmetic(monkeypatch, name, matters):
    monkeypatch.delenv(name, raising=False)
    before = keys.environment_key(CPU)
    monkeypatch.setenv(name, "1")
    assert (keys.environment_key(CPU) != before) == matters
    assert arithmetic.arithmetic_switches().get(name) == ("1" if matters else None)


def test_switches_of_torch():
    before = keys.environment_key(CPU)
    try:
        torch.set_float32_matmul_precision("medium")
        assert keys.environment_key(CPU) != before
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(True)
    try:
        assert keys.environment_key(CPU) != before
    finally:
        torch.set_flush_denormal(False)
    with torch.backends.mkldnn.flags(enabled=False):
        assert keys.environment_key(CPU) != before
    assert keys.environment_key(CPU) == before


def test_versions_and_python():
    found = keys.environment_key(CPU)["versions"]
    assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert {"torch", "transformers", "numpy", "tokenizers", "accelerate"} <= set(found)


def test_a_library_that_is_worked_on_is_known_by_its_source(tmp_path, monkeypatch):
    class InPlace(Distribution):
        def read_text(self, name):
            return json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})

        def locate_file(self, path):
            return tmp_path / path

    (tmp_path / "one.py").write_text("x = 1")
    monkeypatch.setattr(keys, "distribution", lambda name: InPlace())
    keys.editable_source.cache_clear()
    before = keys.editable_source("mine")
    assert len(before) == 64
    (tmp_path / "one.py").write_text("x = 2")
    keys.editable_source.cache_clear()
    assert keys.editable_source("mine") != before
    keys.editable_source.cache_clear()


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "added_tokens.json", "tokenizer.model",
             "merges.txt", "vocab.json", "generation_config.json"],
)  # fmt: skip
def test_files_of_the_tokenizer_and_of_generation(tmp_path, file):
    before = keys.settings_files(tmp_path)
    (tmp_path / file).write_text("{}")
    after = keys.settings_files(tmp_path)
    assert set(after) == {file}
    (tmp_path / file).write_text("{ }")
    assert before != after != keys.settings_files(tmp_path)
    (tmp_path / "README.md").write_text("nothing that a figure depends on")
    assert set(keys.settings_files(tmp_path)) == {file}
