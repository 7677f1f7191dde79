"""When a measurement may stop: a valid verdict of its own, or a cell that is decided already."""

import math

import pytest

from superweight.verdict import judge_run, may_stop
from support import guarded_t
from support.by_hand import BASE, baseline, cell, perplexity, zero_shot
from support.judging import MARGIN, answered, card, gates, judged, losses, lost_with, part, rules, shifted, waiver

LONG = [3.0 + 0.01 * (place % 7) for place in range(64)]
WIKI, PIQA = "perplexity:wiki", "zero-shot:piqa"
ONE = {"m/rtn": 1}


def text(nll, n, **more):
    return cell(perplexity={"wiki": part(nll, range(n), **more)})


def stops(nll, n, by=None, base=LONG):
    return may_stop(text(nll, n), WIKI, baseline(base), by or rules(sequential=True, planned=ONE))


def worse(amount, wobble=0.1):
    return shifted(amount, LONG, wobble)


def first(nll, **more):
    return next((n for n in range(1, len(LONG)) if stops(nll, n, **more)), None)


def test_a_destroyed_model_is_decided_by_its_first_windows():
    assert first(worse(3.0)) in (3, 4, 5)
    assert not stops(worse(3.0), 1)


def test_one_window_without_a_number_is_enough():
    assert stops([math.inf, *LONG[1:]], 1)


def test_a_healthy_model_stops_when_its_margin_is_cleared():
    """Not before, and at every n from there on."""
    nll = shifted(0.0, LONG, 0.02)
    lost = losses(nll, LONG)
    expected = [n >= 2 and guarded_t.early_p_pass(lost[:n], MARGIN) <= 0.025 for n in range(1, 30)]
    assert [stops(nll, n) for n in range(1, 30)] == expected
    assert not expected[1]
    assert 3 < first(nll) < 20


def test_an_undecided_one_goes_on():
    assert first(shifted(MARGIN, LONG, 0.02)) is None


def test_without_sequential_rules_nothing_stops():
    by = rules(sequential=False, planned=ONE)
    assert first(worse(3.0), by=by) is None
    assert first(shifted(0.0, LONG), by=by) is None


@pytest.mark.parametrize("cells", [1, 10, 100])
def test_a_reason_to_stop_is_corrected_for_every_gate_of_every_cell(cells):
    """Three gates a cell: the p-value must hold 3·cells times."""
    planned = {"m/rtn": 3} | {f"m/other{number}": 3 for number in range(cells - 1)}
    nll = worse(0.5, 0.2)
    lost = losses(nll, LONG)
    expected = next(n for n in range(2, 64) if guarded_t.early_p_regression(lost[:n], MARGIN) * 3 * cells <= 0.025)
    assert first(nll, by=rules(sequential=True, planned=planned)) == expected


def test_to_pass_needs_no_correction():
    nll = shifted(0.0, LONG, 0.02)
    planned = {f"m/other{number}": 10 for number in range(50)}
    assert first(nll, by=rules(sequential=True, planned=planned)) == first(nll)


def unfinished(nll, scores=(1.0,) * 3, planned=200, **more):
    """Perplexity is whole, and of the items only a few are in."""
    return cell(nll=nll, zero_shot={"piqa": zero_shot(list(scores), planned=planned)}, **more)


THEIRS = baseline(scores=[1.0] * 200)


def test_what_was_measured_whole_and_is_undecided_was_pursued():
    ours = cell(nll=shifted(1.0), scores=[0.0] * 10 + [1.0] * 190)
    found = gates(ours, THEIRS, rules(sequential=True, planned={"m/rtn": 2}))
    assert (found[WIKI].verdict, found[PIQA].verdict) == ("REGRESSION", "INCONCLUSIVE")
    assert "not pursued" not in found[PIQA].message


@pytest.mark.parametrize(("shift", "expected"), [(1.0, True), (MARGIN, False), (0.0, False)])
def test_a_cell_that_another_gate_has_decided_is_not_pursued(shift, expected):
    """Not one that is merely undecided, nor one that has only passed so far."""
    by = rules(sequential=True, planned={"m/rtn": 2})
    ours = unfinished(shifted(shift))
    assert may_stop(ours, PIQA, THEIRS, by) is expected
    message = gates(ours, THEIRS, by)[PIQA].message
    assert ("not pursued, since perplexity:wiki decided the cell" in message) is expected


def test_without_sequential_rules_a_decided_cell_is_measured_whole_too():
    by = rules(sequential=False, planned={"m/rtn": 2})
    assert gates(unfinished(shifted(1.0)), THEIRS, by)[WIKI].verdict == "REGRESSION"
    assert not may_stop(unfinished(shifted(1.0)), PIQA, THEIRS, by)


@pytest.mark.parametrize(("p", "expected"), [(0.0019, True), (0.0021, False)])
def test_what_stops_a_cell_stands_when_the_run_is_judged(p, expected):
    """Cells need not be asked the same: four gates here and one in each of two others. The run corrects p by four for
    the gates and by three for the cells, 0.025/12 = 0.00208."""
    planned = {"m/rtn": 4, "m/b": 1, "m/c": 1}
    by = rules(sequential=True, planned=planned)
    ours = unfinished(lost_with(0.8 * p))  # the last analysis has four fifths of the error rate
    assert may_stop(ours, PIQA, THEIRS, by) is expected
    others = [judged(cell(name, nll=shifted(0.0)), THEIRS, by) for name in ("b", "c")]
    run = judge_run([judged(THEIRS), judged(ours, THEIRS, by), *others])
    assert run.verdict == ("REGRESSION" if expected else "INCONCLUSIVE")


def test_a_waived_regression_decides_its_own_figure_and_not_the_cell():
    """Somebody answers for the perplexity, so the items still have to tell whether the cell passes."""
    given = {"sequential": True, "planned": {"m/rtn": 2}}
    ours = unfinished(shifted(1.0))
    for waivers, goes_on in (([waiver(WIKI)], True), ([waiver(WIKI, expires="2026-02-28")], False), ([], False)):
        assert may_stop(ours, PIQA, THEIRS, rules(waivers=waivers, **given)) is not goes_on
    by = rules(waivers=[waiver(WIKI)], **given)
    assert stops(worse(3.0), 8, by=by)
    assert "not pursued" not in gates(ours, THEIRS, by)[PIQA].message


CARDS = [card("perplexity"), card("zero-shot"), card("divergence", 0.05)]


@pytest.mark.parametrize(("kl", "expected"), [(0.001, True), (0.05, False), (0.5, True)])
def test_a_text_stops_when_all_its_gates_are_in(kl, expected):
    """Perplexity has passed at 20 windows; the divergence is far below its margin, at it, or far above."""
    ours = text(shifted(0.0, LONG), 20, kl=[kl + (0.0005 if place % 2 else -0.0005) for place in range(20)])
    by = rules(*CARDS, sequential=True, planned={"m/rtn": 2})
    assert may_stop(ours, WIKI, baseline(LONG), by) is expected
    assert stops(shifted(0.0, LONG), 20)


def test_a_waived_gate_of_a_text_leaves_its_others_to_be_decided():
    kl = [0.05 + (0.0005 if place % 2 else -0.0005) for place in range(20)]
    by = rules(*CARDS, waivers=[waiver(WIKI)], sequential=True, planned={"m/rtn": 2})
    assert not may_stop(text(worse(3.0), 20, kl=kl), WIKI, baseline(LONG), by)
    assert may_stop(text(worse(3.0), 20, kl=[0.5 + value for value in kl]), WIKI, baseline(LONG), by)


@pytest.mark.parametrize("given", [{"expires": "2026-02-28"}, {"n": 24}])
def test_what_no_card_may_judge_is_measured_whole(given):
    by = rules(card(**given), card("zero-shot"), sequential=True, planned=ONE)
    assert first(shifted(0.0, LONG), by=by) is first(worse(3.0), by=by) is None


def test_what_nobody_asks_about_is_measured_whole():
    assert first(shifted(0.0, LONG), by=rules(card("zero-shot"), sequential=True)) is None


def test_a_bound_on_the_figure_itself_waits_for_all_windows():
    """It is for all of them, so that none can be spared; a model that has lost too much needs no bound to fail."""
    bound = card(value=100.0, n=64, device_class="cpu", models=("m",), of=("wiki",))
    by = rules(bound, card("zero-shot"), sequential=True, planned=ONE)
    assert first(shifted(0.0, LONG), by=by) is None
    ours = text(worse(3.0), 8).model_copy(update={"checkpoint": {"environment": {"device class": "cpu x86_64"}}})
    assert may_stop(ours, WIKI, baseline(LONG), by)


def test_without_a_baseline_nothing_is_decided():
    ours, theirs = text(worse(3.0), 20), cell("baseline", "baseline")
    assert not may_stop(ours, WIKI, theirs, rules(sequential=True))


def test_a_task_stops_by_its_own_items():
    def asked(scores, n):
        ours = cell(zero_shot={"piqa": zero_shot(scores[:n], planned=1000)})
        return may_stop(ours, PIQA, baseline(scores=[1.0] * 1000), rules(sequential=True, planned=ONE))

    right, wrong, few = [1.0] * 1000, [0.0] * 1000, ([0.0] + [1.0] * 19) * 50
    assert [asked(right, n) for n in (50, 400)] == [False, True]
    assert [asked(wrong, n) for n in (2, 50)] == [False, True]
    assert not asked(few, 500)  # one in twenty is the margin


def test_a_text_of_the_same_name_is_another_figure():
    """The task has passed, and the text of the same name is undecided."""
    theirs = cell("baseline", "baseline", perplexity={"x": perplexity(BASE)}, zero_shot={"x": answered([0] * 1000)})
    ours = cell(perplexity={"x": perplexity(shifted(MARGIN))}, zero_shot={"x": answered([0] * 400, planned=1000)})
    by = rules(sequential=True, planned={"m/rtn": 2})
    assert may_stop(ours, "zero-shot:x", theirs, by)
    assert not may_stop(ours, "perplexity:x", theirs, by)
