"""A tiny model in float32, and what the format lint finds in an artefact of it."""

import pytest

from superweight.artefact.lint import Subject, lint
from superweight.artefact.reading import open_reader


@pytest.fixture(scope="session")
def reference(tiny_checkpoint):
    return tiny_checkpoint[0]


@pytest.fixture
def look(reference):
    """What the lint finds: rule → what was found. Nothing is left unchecked unless that is asked for."""

    def run(path, *, alone=False, thorough=False, unchecked=()):
        subject = Subject(open_reader(path), None if alone else open_reader(reference), (), thorough)
        findings, left = lint(subject)
        assert tuple(left) == unchecked, left
        found = {}
        for finding in findings:
            assert finding.where
            assert finding.advice
            found.setdefault(finding.rule, []).append(f"{finding.where}: {finding.found}")
        return found

    return run
