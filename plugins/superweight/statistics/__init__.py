"""Statistics of paired comparisons: tests, intervals, confidence sequences, power. Needs scipy alone."""
