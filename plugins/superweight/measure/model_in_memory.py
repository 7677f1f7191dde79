"""A loaded model on which recipes are applied one after another, each undone to the last bit before the next."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from superweight.checkpoint.loading import LoadedModel
from superweight.compress import Applied
from superweight.errors import InfraError
from superweight.evaluate import ResidentModel
from superweight.forward.scorer import Scorer
from superweight.measure.fingerprint import fingerprints

_LISTED = 8  # parameters named in a message


class ModelInMemory:
    """A loaded model with at most one recipe in force.

    Args:
        loaded: the model, no recipe in force.

    Attributes:
        model: what scores and generates with it, as it is at the moment.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model = ResidentModel(Scorer(loaded))
        self.model.scorer.begin_with(list(loaded.architecture.layers))
        self.head_changed = False
        """Whether the recipe in force changes what turns the body's states into logits."""
        self.written_unasked: set[str] = set()
        """Parameters that a recipe changed without saying so, which undo may know nothing of."""
        self._applied: tuple[str, Applied] | None = None
        self._spoiled: InfraError | None = None

    @cached_property
    def original(self) -> dict[str, str]:
        """Fingerprints of all parameters as the checkpoint has them, by name."""
        self.undo()
        return fingerprints(self.loaded.model)

    def apply(self, recipe: str, compress: Callable[[], Applied]) -> Applied:
        """Bring the model into the state that a recipe makes, undoing another's first.

        Args:
            recipe: its id; if it is in force already, nothing is done.
            compress: applies it to the uncompressed model.
        """
        if self._applied is None or self._applied[0] != recipe:
            self.undo()
            self.original  # noqa: B018 - taken before the first change, for undo to check against
            self._applied = (recipe, compress())
            self._begin(_first_layer(self.loaded.architecture.prefix, self._applied[1]))
            self.head_changed = self._touches_head(self._applied[1])
        return self._applied[1]

    def undo(self) -> None:
        """Bring the uncompressed model back.

        Raises:
            InfraError: a recipe could not be undone to the last bit, now or before: no figure may be taken from this
                model any more.
        """
        if self._spoiled is not None:
            raise self._spoiled
        if self._applied is not None:
            self._begin(0)
            (_, applied), self._applied = self._applied, None
            try:
                applied.undo()
                self._check_undone(applied)
            except Exception as error:
                self._spoiled = InfraError(f"the model could not be restored after a recipe: {error}", reason="crash")
                raise self._spoiled from error

    def _touches_head(self, applied: Applied) -> bool:
        model = self.loaded.model
        head = model.get_output_embeddings()
        if head is None:
            return False
        names = {name for name, module in model.named_modules() if module is head}
        weights = {name for name, parameter in model.named_parameters() if parameter is head.weight}
        return bool({*applied.rewritten, *applied.hooks} & (names | weights))

    def _check_undone(self, applied: Applied) -> None:
        now = fingerprints(self.loaded.model, {*applied.rewritten, *self.written_unasked})
        differing = [name for name, fingerprint in now.items() if fingerprint != self.original[name]]
        if differing:
            names = ", ".join(differing[:_LISTED]) + (", …" if len(differing) > _LISTED else "")
            raise InfraError(f"{len(differing)} parameters are not what they were: {names}", reason="crash")

    def _begin(self, layer: int) -> None:
        """Let forward passes begin at a layer, all before it being as the checkpoint has them."""
        if self.model.scorer.layer_inputs is not None:
            self.model.scorer.layer_inputs.first = layer


def _first_layer(layers: str, applied: Applied) -> int:
    """The first decoder layer that a recipe touches; 0 if it touches anything else, or nothing.

    A recipe that touches nothing is a control of the measurement, which must not be spared.
    """
    touched = [*applied.rewritten, *applied.hooks]
    if not all(name.startswith(f"{layers}.") for name in touched):
        return 0
    return min((int(name.removeprefix(f"{layers}.").partition(".")[0]) for name in touched), default=0)
