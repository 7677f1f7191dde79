"""Do the super weights survive?"""

import pytest


@pytest.mark.superweight_roles("candidate", "control", "reference")
def test_super_weights(cell, must_pass):
    """Every super weight of the card and of detection is stored with the checkpoint's own bits."""
    must_pass(cell, cell.super_weights())
