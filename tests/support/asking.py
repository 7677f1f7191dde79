"""A prepared task together with the model in memory that it is asked of."""

from superweight.evaluate import ResidentModel, prepare_task
from superweight.forward.scorer import Scorer


class AskedTask:
    """`measure()` asks the model as it is at the moment; everything else is the prepared task's."""

    def __init__(self, loaded, card, cache, *, model=None, **options):
        self.model = model or ResidentModel(Scorer(loaded))
        self.task = prepare_task(self.model.task_lm, card, cache, **options)

    def measure(self):
        return self.task.measure(self.model)

    def __getattr__(self, name):
        return getattr(self.task, name)
