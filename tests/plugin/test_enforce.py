"""Which verdicts fail a test, which warn, and what becomes of a regression that many candidates make likely."""

import pytest

from pytest_superweight.enforce import enforce
from superweight.cards import load_library
from superweight.errors import GateFailure, Inconclusive, Suspicious, Waived
from superweight.gate import GateRun, Plan, RequestedGate, Settings
from superweight.verdict import GateResult

WAIVER = {"id": "w", "ticket": "QA-17", "expires": "2126-01-31", "why": "known"}


class Cell:
    """What `enforce` asks of a cell under test."""

    class cell:  # noqa: N801
        id = "m/rtn"

    def __init__(self, role="candidate", stands=True):
        self.role, self._stands = role, stands

    def stands(self, _):
        return self._stands


def gate(verdict, **more):
    return GateResult(gate="perplexity:wiki", kind="perplexity", verdict=verdict, message="figures", **more)


def test_a_regression_fails_and_a_pass_does_not():
    enforce(Cell(), gate("PASS"))
    with pytest.raises(GateFailure, match="figures"):
        enforce(Cell(), gate("REGRESSION"))
    enforce(Cell("reference"), gate("REGRESSION"))


@pytest.mark.parametrize("role", ["candidate", "baseline", "control", "reference"])
def test_what_was_not_measured_fails_in_every_role(role):
    with pytest.raises(GateFailure):
        enforce(Cell(role), gate("INFRA"))


@pytest.mark.parametrize(("verdict", "stands"), [("INCONCLUSIVE", True), ("REGRESSION", False)])
def test_what_is_undecided_warns_and_fails_where_the_tier_says_so(verdict, stands):
    with pytest.warns(Inconclusive, match="figures"):
        enforce(Cell(stands=stands), gate(verdict))
    with pytest.raises(GateFailure):
        enforce(Cell(stands=stands), gate(verdict), inconclusive_is_red=True)


def test_waived_and_suspicious_figures_warn():
    with pytest.warns(Waived, match="QA-17"):
        enforce(Cell(), gate("REGRESSION", waiver=WAIVER))
    with pytest.warns(Suspicious):
        enforce(Cell(), gate("PASS", flags=["too good to be true"]))


def test_a_regression_stands_for_the_run_once_corrected_for_its_candidates(tmp_path):
    settings = Settings(out=tmp_path, store=None, baselines=tmp_path)
    model = "smollm2-135m-instruct"
    names = ("clip-restore-int8-channel", "w8a8-channel-token-handled", "rtn-int4-g64")  # the last is a reference there
    asked = [RequestedGate(f"{model}/{name}", "perplexity:wiki-embedded") for name in names]
    run = GateRun(Plan.of(load_library(), settings).asking(asked), settings)
    assert run.stands(gate("REGRESSION", p_adjusted=0.0125, alpha=0.025))
    assert not run.stands(gate("REGRESSION", p_adjusted=0.0126, alpha=0.025))
    assert run.stands(gate("REGRESSION"))  # a lost super weight is no matter of chance
