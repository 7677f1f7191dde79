"""The benchmark of ways to bring super weights back, on a few tokens."""

import json

import pytest

import restoring


@pytest.mark.real
def test_every_variant_is_measured_on_the_same_windows(tmp_path, monkeypatch, capsys):
    base = "W8 a row, down_proj, clipped at 0.999"
    out = tmp_path / "found.json"
    monkeypatch.setattr(
        "sys.argv", ["restoring.py", "--bases", base, "--windows", "3", "--window", "64", "-o", str(out)]
    )
    restoring.main()
    found = json.loads(out.read_text())["figures"]
    assert [row["variant"] for row in found] == [
        "uncompressed",
        "as it is",
        "adapter, kept in float32",
        "adapter, kept in bfloat16",
        "ignore",
    ]
    _, plain, adapter, narrow, ignore = found
    assert plain["exact"] == 0
    assert adapter["exact"] == narrow["exact"] == ignore["exact"] == 4
    assert adapter["bytes"] == plain["bytes"] < ignore["bytes"]
    assert 0 < adapter["adapter_bytes"] < 80_000
    assert adapter["perplexity"] != plain["perplexity"]
    assert all(len(row["nll"]) == 3 for row in found[1:])
    assert all(row["change"][1] <= row["change"][0] <= row["change"][2] for row in found[1:])
    table = capsys.readouterr().out
    assert table.count("4 of 4") == 3
