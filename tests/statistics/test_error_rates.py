"""Error rates by simulation, with the functions of the benchmark; and that they judge as real runs are judged."""

import json
import math

import numpy as np
import pytest

import verdicts
from superweight.statistics.noninferiority import ErrorBudget, compare_means, compare_scores


@pytest.fixture(scope="module")
def evidence():
    """Measured figures, made up: skewed losses of a few windows, and answers that differ on one item in eight."""
    rng = np.random.default_rng(8)
    nll = rng.normal(3, 0.3, 40)
    answers = rng.random((2, 160)) < 0.6
    answers[1] = np.where(rng.random(160) < 0.75, answers[0], answers[1])
    as_text = ["".join("1" if right else "0" for right in row) for row in answers]
    return {
        "perplexity": {"wiki": {"baseline": nll.tolist(), "w8a8": (nll + rng.gamma(4, 0.01, 40)).tolist()}},
        "zero_shot": {"piqa": {"baseline": as_text[0], "w8a8": as_text[1]}},
    }


def test_no_error_rate_exceeds_alpha(evidence):
    """At the margin, where the rates are highest; alpha and three standard errors."""
    tables, claims = verdicts.simulate(verdicts.QUICK, {"perplexity": {}, "zero_shot": evidence["zero_shot"]})
    assert claims.broken() == []
    assert len(claims.measured) == 40 + 8
    assert max(rate for _, rate in claims.measured) > 0.02, "so low a rate would be a test that never decides"
    assert verdicts.verdict(claims).startswith("HOLDS: all 48")
    rows = {table.title: table.rows for table in tables}
    toss = rows["0/1 scores: wrong verdicts on a model exactly at the margin"][0]["tolerance"]
    assert all(45 < float(side) < 56 for side in toss.split(" / "))


def test_a_broken_claim_is_told():
    claims = verdicts.Claims(verdicts.QUICK)
    claims.rate("always wrong", np.array([verdicts.sim.PASS] * 10), verdicts.sim.PASS)
    claims.rate("never wrong", np.array([verdicts.sim.OPEN] * 10), verdicts.sim.PASS)
    assert verdicts.verdict(claims) == "BROKEN: 1 of 2 error rates exceed 3.55%:\n- 100.00%: always wrong"


def known(comparisons):
    """1, 0 and −1 from a comparison's p-values."""
    return [1 if c.p_pass <= 0.025 else -1 if c.p_regression <= 0.025 else 0 for c in comparisons]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
def test_simulated_scores_are_judged_as_real_ones_are(loss):
    sim = verdicts.sim
    scores = sim.draw_scores(np.random.default_rng(1), 60, 230, sim.Truth(loss, 0.12), 50)
    assert scores.n.tolist() == [50, 100, 150, 200, 230]
    rows = list(zip(scores.gained.tolist(), scores.lost.tolist(), strict=True))
    whole = ErrorBudget(early_share=0)
    expected = [compare_scores(g[-1], x[-1], 230, planned=230, margin=0.05, design=whole) for g, x in rows]
    assert sim.exact(scores, 0.05, 0.025).tolist() == known(expected)
    found = sim.sequential(scores, 0.05, ErrorBudget())
    for (gained, lost), verdict, spent in zip(rows, found.verdicts, found.spent, strict=True):
        looks = [
            compare_scores(g, x, int(n), planned=230, margin=0.05, design=ErrorBudget())
            for g, x, n in zip(gained, lost, scores.n, strict=True)
        ]
        first = next((look for look in looks if known([look]) != [0]), looks[-1])
        assert ([verdict], spent) == (known([first]), first.n / 230)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.12])
def test_simulated_windows_are_judged_as_real_ones_are(evidence, loss):
    sim = verdicts.sim
    pairs = sim.Windows(*(np.array([evidence["perplexity"]["wiki"][recipe]]) for recipe in ("baseline", "w8a8")))
    windows = sim.draw_windows(np.random.default_rng(2), 60, 12, loss, pairs)
    losses = (windows.candidate - windows.baseline).tolist()
    expected = [compare_means(row, planned=12, margin=0.05, design=ErrorBudget(early_share=0)) for row in losses]
    assert sim.student(windows, 0.05, 0.025).tolist() == known(expected)
    found = sim.sequential_t(windows, 0.05, ErrorBudget())
    for row, verdict, spent in zip(losses, found.verdicts, found.spent, strict=True):
        looks = [compare_means(row[:n], planned=12, margin=0.05, design=ErrorBudget()) for n in range(2, 13)]
        first = next((look for look in looks if known([look]) != [0]), looks[-1])
        assert ([verdict], spent) == (known([first]), first.n / 12)


def test_resampled_windows_have_the_loss_that_is_asked_for(evidence):
    sim = verdicts.sim
    pairs = sim.Windows(*(np.array([evidence["perplexity"]["wiki"][recipe]]) for recipe in ("baseline", "w8a8")))
    windows = sim.draw_windows(np.random.default_rng(3), 2000, 40, 0.07, pairs)
    differences = windows.candidate - windows.baseline
    assert differences.mean() == pytest.approx(0.07, abs=1e-3)
    assert differences.std() == pytest.approx((pairs.candidate - pairs.baseline).std(), rel=0.02)
    assert np.isin(windows.baseline, pairs.baseline).all()


def test_drawn_scores_have_the_truth_that_is_asked_for():
    sim = verdicts.sim
    scores = sim.draw_scores(np.random.default_rng(4), 4000, 500, sim.Truth(0.04, 0.1, accuracy=0.7), 50)
    lost, gained, right = (counts[:, -1].mean() / 500 for counts in (scores.lost, scores.gained, scores.right))
    assert (lost, gained, right) == pytest.approx((0.07, 0.03, 0.7), abs=2e-3)


def test_the_other_rules_by_hand():
    sim = verdicts.sim

    def once(gained, lost, right, n):
        return sim.Scores(*(np.array([[k]]) for k in (gained, lost, right)), np.array([n]))

    # 5 % of 60 right answers are 3.
    assert [int(sim.tolerance(once(0, lost, 60, 100))[0]) for lost in (3, 4)] == [sim.PASS, sim.FAIL]
    # 60 against 47 of 100: z = 0.13/√(2·0.535·0.465/100) = 1.843; against 46: 1.98.
    assert [int(sim.unpaired(once(0, lost, 60, 100))[0]) for lost in (13, 14)] == [sim.PASS, sim.FAIL]
    # No change at all leaves the plain normal interval without width.
    assert int(sim.wald(once(0, 0, 60, 5), 0.05, 0.025)[0]) == sim.PASS
    one = np.array([[3.0, 3.1, 2.9, 3.2]])
    windows = sim.Windows(one, one + np.array([[0.06, 0.07, 0.05, 0.06]]))
    assert int(sim.tolerance_t(windows, 0.05)[0]) == sim.FAIL
    assert int(sim.unpaired_t(windows)[0]) == sim.PASS
    # t = 0.01/(0.0081650/√4) = 2.45 is beyond the normal quantile 1.96, and within Student's 3.18.
    assert int(sim.plain(windows, 0.05, 0.025, normal=True)[0]) == sim.FAIL
    assert int(sim.plain(windows, 0.05, 0.025, normal=False)[0]) == sim.OPEN


def test_the_command(evidence, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verdicts, "QUICK", verdicts.Size(200, (50,), (0.05,), (8,)))
    (tmp_path / "figures.json").write_text(json.dumps(evidence), encoding="utf-8")
    assert verdicts.read(tmp_path) == verdicts.read(tmp_path / "figures.json") == evidence
    assert verdicts.read(tmp_path / "none") == {"perplexity": {}, "zero_shot": {}}
    code = verdicts.main(["--quick", "--evidence", str(tmp_path), "--json", str(tmp_path / "out.json")])
    text = capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert code == int("BROKEN" in text)
    assert written["standard_error"] == pytest.approx(math.sqrt(0.025 * 0.975 / 200))
    for title, rows in written["tables"].items():
        assert f"### {title}\n" in text
        assert rows
    assert "| wiki, w8a8" in text
    assert "200 replicates" in text
