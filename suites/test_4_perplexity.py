"""Does it still model text?"""


def test_perplexity(cell, corpus, must_pass):
    """Perplexity may rise by no more than the margin over the uncompressed model's on the same windows."""
    must_pass(cell, cell.perplexity(corpus))
