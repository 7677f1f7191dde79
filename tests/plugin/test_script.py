"""The gate from a script, as docs/architecture.md writes it, beside the same gate through pytest."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
UNTOUCHED = "\nimport sys\nassert not {'pytest', 'xdist', 'pytest_superweight'} & set(sys.modules)\n"


def script():
    section = PAGE.read_text().partition("## A gate from a script")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


def without_times(cell):
    return {name: value for name, value in cell.items() if name not in ("seconds", "reused")}


def test_a_script_gates_without_pytest_and_finds_what_pytest_finds(project):
    project.models("tiny", recipes=["baseline", "no-op", "prune-super-weights", "clip-restore-int8-channel"])
    gated = project.gate("--superweight-store", "none")
    assert gated.ret == 0, gated.stdout.str()
    through_pytest = project.evidence
    (project.root / "reports" / "latest" / "evidence.json").unlink()

    found = subprocess.run(
        [sys.executable, "-c", script() + UNTOUCHED], cwd=project.root, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == "PASS reports/latest/report.html\n"
    scripted = project.evidence
    assert (project.root / "reports" / "latest" / "report.html").is_file()
    assert scripted["verdict"] == through_pytest["verdict"] == "PASS"
    assert scripted["run"]["left_out"] == through_pytest["run"]["left_out"] == []
    assert [cell["recipe"] for cell in scripted["cells"]] == [cell["recipe"] for cell in through_pytest["cells"]]
    for one, other in zip(scripted["cells"], through_pytest["cells"], strict=True):
        assert one["super_weights"]
        assert one["perplexity"]["chain"]["nll"]
        assert without_times(one) == without_times(other)
