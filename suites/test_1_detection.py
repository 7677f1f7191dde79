"""Is this the checkpoint we think it is: are its super weights where the card says?"""

import pytest


@pytest.mark.superweight_roles("baseline")
def test_detection(cell, must_pass):
    """Super weights are found by measurement, confirmed by ablation, and compared with the model card's."""
    must_pass(cell, cell.detection())
