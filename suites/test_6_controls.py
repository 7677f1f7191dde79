"""Can this gate see damage at all, and does it leave an undamaged model alone?"""

import pytest


@pytest.mark.superweight_roles("control")
def test_control(cell, must_see):
    """A model whose super weights were removed must fail; one that was rewritten with itself must pass."""
    must_see(cell, cell.everything())
