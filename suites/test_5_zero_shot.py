"""Does it still answer questions?"""


def test_zero_shot(cell, task, must_pass):
    """Accuracy may fall by no more than the margin below the uncompressed model's on the same items."""
    must_pass(cell, cell.zero_shot(task))
