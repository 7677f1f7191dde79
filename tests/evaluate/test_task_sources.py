"""What a user's task reaches: every file by content, every package by version, and what cannot be known is said."""

from importlib.metadata import version

import pytest

from superweight.evaluate.task_sources import task_sources

SCORING = "def process_results(doc, results):\n    return {'acc': 1.0}\n"


@pytest.fixture
def task(tmp_path):
    """A directory with a task; `task(files)` writes more files and gives what the task reaches."""

    def write(files=None, /, **more):
        given = {"t.yaml": "task: t\nprocess_results: !function scoring.process_results\n", "scoring.py": SCORING}
        for name, text in {**given, **(files or {}), **more}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return task_sources(tmp_path / "t.yaml")

    return write


def names(found):
    return sorted(name.rpartition("/")[2] for name in found.parts)


@pytest.mark.parametrize(
    "files",
    [
        {"scoring.py": "INVERT = True\n" + SCORING},  # a constant of the module
        {"scoring.py": "import helpers\n" + SCORING, "helpers.py": "LIMIT = 1"},
        {
            "scoring.py": SCORING.replace("    return", "    from helpers import LIMIT\n    return"),
            "helpers.py": "LIMIT = 1",
        },
        {"scoring.py": "from . import helpers\n" + SCORING, "helpers.py": "LIMIT = 1"},
        {
            "scoring.py": "from helpers.deep import LIMIT\n" + SCORING,
            "helpers/deep.py": "LIMIT = 1",
            "helpers/__init__.py": "",
        },
        {"scoring.py": "import helpers\n" + SCORING, "helpers.py": "import more", "more.py": "LIMIT = 1"},
        {
            "t.yaml": "include: base.yaml\ntask: t\n",
            "base.yaml": "process_results: !function scoring.process_results\n",
        },
        {"t.yaml": "include: base.yaml\ntask: t\n", "base.yaml": "description: 'another'\n"},
        {"t.yaml": "include: [base.yaml, more.yaml]\ntask: t\n", "base.yaml": "", "more.yaml": "description: 'x'\n"},
        {
            "t.yaml": "include:\n- base.yaml\ntask: t\n",
            "base.yaml": "include: more.yaml\n",
            "more.yaml": "num_fewshot: 0\n",
        },
    ],
)
def test_a_change_anywhere_is_another_task(task, files):
    changed = list(files)[-1]
    before = task(files)
    assert not before.unknowable
    assert changed.rpartition("/")[2] in names(before)
    again = task(files)
    assert again.content == before.content
    assert task({**files, changed: files[changed] + "\n# changed\n"}).content != before.content


def test_what_is_not_reached_does_not_matter(task):
    before = task({"other.py": "x = 1"})
    assert names(before) == ["scoring.py", "t.yaml"]
    assert task({"other.py": "x = 2"}).content == before.content


def test_wherever_it_lies_it_is_the_same_task(task, tmp_path):
    import shutil

    here = task()
    there = shutil.copytree(tmp_path, tmp_path.parent / "elsewhere")
    assert task_sources(there / "t.yaml").content == here.content


def test_the_library_is_known_by_python_and_packages_by_version(task):
    found = task(
        {
            "scoring.py": "import re, math, json\nX = json.loads('[1]')\nimport numpy as np\nfrom scipy import stats\n"
            + SCORING
        }
    )
    assert not found.unknowable
    assert found.parts["numpy"] == version("numpy")
    assert found.parts["scipy"] == version("scipy")
    assert names(found) == ["numpy", "scipy", "scoring.py", "t.yaml"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import random", "random"),
        ("from time import time", "time"),
        ("ANSWERS = open('answers.json').read()", "open"),
        ("from pathlib import Path\nA = Path('a').read_text()", "read_text"),
        ("import os\nX = os.environ['X']", "environ"),
        ("import os\nX = os.getenv('X')", "getenv"),
        ("import numpy as np\nX = np.random.rand()", "random"),
        ("import importlib\nX = importlib.import_module('a')", "importlib"),
        ("X = __import__('a')", "__import__"),
        ("X = eval('1')", "eval"),
        ("import datetime\nX = datetime.datetime.now()", "now"),
        ("import urllib.request", "urllib"),
        ("import pandas as pd\nX = pd.read_csv('answers.csv')", "read_csv"),
        ("from pandas import read_parquet\nX = read_parquet('a')", "read_parquet"),
        ("import numpy as np\nX = np.load('a.npy')", "load"),
        ("import numpy as np\nX = np.genfromtxt('a')", "genfromtxt"),
        ("import transformers\nX = transformers.AutoTokenizer.from_pretrained('a')", "from_pretrained"),
        ("from huggingface_hub import hf_hub_download\nX = 1", "hf_hub_download"),
        ("import no_such_package_anywhere", "no_such_package_anywhere"),
    ],
)
def test_what_cannot_be_known_is_told_with_its_line(task, line, what):
    found = task({"scoring.py": line + "\n" + SCORING})
    assert "scoring.py" in found.unknowable
    assert what in found.unknowable
    assert ("this process", found.content[-1][1]) == found.content[-1]
    assert len(found.content[-1][1]) == 32


def test_python_that_is_not_there_or_not_python(task):
    assert "names nowhere.f" in task({"t.yaml": "process_results: !function nowhere.f\n"}).unknowable
    assert "cannot be read as Python" in task({"scoring.py": "def ("}).unknowable


def test_files_that_import_each_other_are_read_once(task):
    found = task({"scoring.py": "import helpers\n" + SCORING, "helpers.py": "import scoring"})
    assert names(found) == ["helpers.py", "scoring.py", "t.yaml"]
