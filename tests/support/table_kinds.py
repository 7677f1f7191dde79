"""Kinds of recipes for tests: one whose answers are written down as they come, and one that is answered from those."""

from typing import Literal

from superweight.cards.methods import ClipRestore, Method


class Recorded(ClipRestore):
    """Clip and restore, written down."""

    kind: Literal["recorded"]
    runner = "support.table_runner:RecordingRunner"


class FromTable(Method):
    """Whatever the table says: it stands for a file that another tool wrote and an engine serves."""

    kind: Literal["from-table"]
    implementation = ""
    runner = "support.table_runner:TableRunner"
    compresses = True
    changes_nothing = False
    of_super_weights = False
    calibration = property(lambda self: None)
    scale_spans_row = property(lambda self: False)
    simulated = property(lambda self: False)

    def next_settings(self):
        return []

    def settings_that_keep_super_weights(self):
        return []
