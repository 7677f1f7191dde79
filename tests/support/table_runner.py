"""Runners for tests: one that writes down what the model in memory answers, and one that answers from what was written.

The second knows no model: it stands for an engine that gives log-likelihoods and scalars, and no distributions.
"""

import json
from contextlib import contextmanager
from pathlib import Path

from superweight.errors import InfraError
from superweight.evidence import LayerPeaks, Sanity, Size
from superweight.forward.runner import Inspection, Scalar, WindowScore
from superweight.measure.resident_runner import ResidentRunner

TABLE = Path("table.json")  # where the run was started


def pair_key(context, continuation):
    return f"{' '.join(map(str, context))} | {' '.join(map(str, continuation))}"


def empty():
    return {"windows": {}, "continuations": {}, "scalars": {}, "inspection": None, "vocabulary": 0}


class RecordingRunner(ResidentRunner):
    """Answers as the model in memory does, and writes every answer to the table."""

    def _write(self, part, answers):
        table = json.loads(TABLE.read_text()) if TABLE.exists() else empty()
        table[part] = table[part] | answers if isinstance(table[part], dict) else answers
        table["vocabulary"] = self.vocabulary
        TABLE.write_text(json.dumps(table))

    def score_windows(self, text, batch, *, compare=False):
        scores = super().score_windows(text, batch, compare=compare)
        self._write("windows", {f"{text.tokens_sha256} {n}": s.nll for n, s in zip(batch, scores, strict=True)})
        return scores

    def score_continuations(self, pairs, *, max_length, progress=None):
        found = super().score_continuations(pairs, max_length=max_length, progress=progress)
        self._write("continuations", {pair_key(*pair): answer for pair, answer in zip(pairs, found, strict=True)})
        return found

    def stored(self, where):
        scalar = super().stored(where)
        self._write("scalars", {str(where): list(scalar)})
        return scalar

    def inspect(self):
        found = super().inspect()
        plain = {
            "sanity": found.sanity.model_dump(),
            "size": found.size.model_dump(),
            "figures": dict(found.figures),
            "peaks": [peaks.model_dump() for peaks in found.peaks],
        }
        self._write("inspection", plain)
        return found


class TableRunner:
    """Answers from the table alone."""

    def __init__(self, reference, cell):
        self.cannot = {"divergence": "the table holds log-likelihoods and no distributions"}
        self._table = json.loads(TABLE.read_text())
        self.vocabulary = self._table["vocabulary"]
        self.identity = {"table": self._table, "recipe": cell.recipe.method.model_dump(mode="json")}
        self.about = {"origin": "a table", "content_hash": "", "dtype": "float32", "compute_dtype": "float32"}
        self.closed = False

    def score_windows(self, text, batch, *, compare=False):
        return [WindowScore(self._table["windows"][f"{text.tokens_sha256} {number}"]) for number in batch]

    def score_continuations(self, pairs, *, max_length, progress=None):
        return [tuple(self._table["continuations"][pair_key(*pair)]) for pair in pairs]

    def generate(self, prompts):
        raise InfraError("the table holds no text", reason="unsupported")

    def stored(self, where):
        return Scalar(*self._table["scalars"][str(where)])

    def inspect(self):
        found = self._table["inspection"]
        peaks = [LayerPeaks.model_validate(peaks) for peaks in found["peaks"]]
        return Inspection(
            Sanity.model_validate(found["sanity"]), Size.model_validate(found["size"]), found["figures"], peaks
        )

    @contextmanager
    def another_way(self):
        yield ""

    def close(self):
        self.closed = True
