"""Verdicts: pure functions of evidence."""

from superweight.verdict.cell import gates_of
from superweight.verdict.decide import JudgedCell, Reason, RunVerdict, judge_cell, judge_run, unmeasured
from superweight.verdict.integrity import judge_detection, judge_sanity, judge_super_weights
from superweight.verdict.quality import judge_perplexity, judge_zero_shot
from superweight.verdict.result import DECIDING, SEVERITY, GateResult, combine, decides, infra_gate, severity
from superweight.verdict.rules import Rules
from superweight.verdict.stopping import may_stop

__all__ = [
    "DECIDING",
    "SEVERITY",
    "GateResult",
    "JudgedCell",
    "Reason",
    "Rules",
    "RunVerdict",
    "combine",
    "decides",
    "gates_of",
    "infra_gate",
    "judge_cell",
    "judge_detection",
    "judge_perplexity",
    "judge_run",
    "judge_sanity",
    "judge_super_weights",
    "judge_zero_shot",
    "may_stop",
    "severity",
    "unmeasured",
]
