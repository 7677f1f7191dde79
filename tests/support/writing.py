"""What tests of writing artefacts share: a recipe, and where their super weight is."""

from superweight.cards.base import Coordinate

W4 = {"kind": "integer", "bits": 4, "symmetric": True, "granularity": "group", "group_size": 8}
W8A8 = {"kind": "integer", "bits": 8, "symmetric": True, "granularity": "channel", "activations": "token"}
SUPER = Coordinate(layer=1, row=3, column=5)
DOWN = "model.layers.1.mlp.down_proj"
