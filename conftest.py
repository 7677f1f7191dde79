"""Wiring of the suites in this repository: short names for the plugin's fixtures, one worker per model."""

import pytest

from pytest_superweight.scheduling import pytest_xdist_make_scheduler

__all__ = ["pytest_xdist_make_scheduler"]


@pytest.fixture
def cell(superweight_cell):
    """One model under one recipe."""
    return superweight_cell


@pytest.fixture
def corpus(superweight_corpus):
    """One perplexity measurement of the tier."""
    return superweight_corpus


@pytest.fixture
def task(superweight_task):
    """One zero-shot measurement of the tier."""
    return superweight_task


@pytest.fixture
def must_pass(superweight_enforce):
    """Fail unless the gate passed, if its cell is one that decides."""
    return superweight_enforce


@pytest.fixture
def must_see(superweight_enforce_control):
    """Fail unless the control got the verdict that it declares."""
    return superweight_enforce_control
