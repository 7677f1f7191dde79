"""Did the recipe do what it says, and nothing else?"""

import pytest


@pytest.mark.superweight_roles("candidate", "control", "reference")
def test_sanity(cell, must_pass):
    """Weights are finite, only the declared parameters changed, and the size is accounted for in bits per weight."""
    must_pass(cell, cell.sanity())
