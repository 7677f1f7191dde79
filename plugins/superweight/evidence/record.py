"""What every document of evidence is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A mutable document that tolerates keys of later versions."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")
