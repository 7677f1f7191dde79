"""A plan of a few cells, and a measurer that computes nothing."""

import pytest


class Figures:
    """A measurer whose every cell keeps everything, unless it is told what cannot be measured."""

    def __init__(self, evidence, stop, watch, broken):
        self.evidence, self.stop, self.watch, self.broken = evidence, stop, watch, broken
        self.planned = {}

    def plan(self, model_id, entries):
        self.planned[model_id] = list(entries)

    def detection(self, cell):
        from superweight.evidence import DetectionEvidence

        self._into(cell, "detection").detection = DetectionEvidence()

    def sanity(self, cell):
        from superweight.evidence import Sanity, Size

        evidence, changed = self._into(cell, "sanity"), ["w"] if cell.role == "candidate" else []
        evidence.sanity = Sanity(declared=changed, changed=changed, undeclared=[], unchanged=[])
        evidence.size = Size(compressed_bits_per_weight=8.0, model_bits_per_weight=9.0)

    def perplexity(self, cell, entry):
        from superweight.evidence import Perplexity

        nll = [1.0 + 0.01 * i for i in range(16)]
        self._into(cell, f"perplexity:{entry.corpus}").perplexity[entry.corpus] = Perplexity(
            value=3.0, protocol="p", corpus=entry.corpus, origin="here", window=64, windows=16, planned=16, tokens=1024,
            nll=nll, tokens_sha256="0" * 64, key="k",
        )  # fmt: skip

    def zero_shot(self, cell, entry):
        from superweight.evidence import ZeroShot

        items = [
            {"doc_id": i, "doc_hash": f"h{i}", "acc": float(i % 10 > 0), "loglikelihoods": [-1.0, -2.0]}
            for i in range(200)
        ]
        self._into(cell, f"zero-shot:{entry.task}").zero_shot[entry.task] = ZeroShot(
            task=entry.task, metric="acc", n=200, planned=200, data="here", metrics={"acc": 0.9}, key="k", items=items
        )

    def _into(self, cell, stage):
        from superweight.errors import InfraError
        from superweight.evidence import CellEvidence, Failure
        from superweight.progress import Step

        evidence = self.evidence.setdefault(cell.id, CellEvidence.of(cell))
        self.watch(Step(cell.id, stage))
        evidence.seconds[stage] = 0.5
        if (cell.id, stage) in self.broken:
            evidence.failures.append(Failure(stage=stage, reason="too-short", message="a text too short"))
            raise InfraError("a text too short", reason="too-short")
        return evidence


@pytest.fixture(scope="session")
def library():
    from superweight.cards import load_library

    return load_library()


@pytest.fixture
def settings(tmp_path):
    from superweight.gate import Settings

    return Settings(
        recipes=("no-op", "clip-restore-int8-channel"), out=tmp_path / "out", store=None, baselines=tmp_path / "base"
    )


@pytest.fixture
def make_run(library, settings):
    """`make_run(broken=[(cell, stage)], watch=…)`: a run whose measurer is `Figures`."""
    from superweight.gate import GateRun, Plan

    def make(broken=(), **more):
        def measurer(plan, settings, evidence, *, stop, watch):
            found = Figures(evidence, stop, watch, set(broken))
            for model_id in plan.requested_models:
                found.plan(model_id, plan.planned_entries(model_id))
            return found

        return GateRun(Plan.of(library, settings), settings, make_measurer=measurer, **more)

    return make


@pytest.fixture
def unwritten(monkeypatch):
    """Runs finish without a run directory, whose pages and pictures take a second or more."""
    monkeypatch.setattr("superweight.gate.result.write_run", lambda *_: None)
