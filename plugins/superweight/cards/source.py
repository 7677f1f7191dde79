"""Where a checkpoint or a file of data comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from superweight.cards.base import Sha256, Strict


class HubSource(Strict):
    """A repository on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.\-]+(/[\w.\-]+)?$", description="`organisation/name`")
    revision: str = Field(
        default="main", min_length=1, description="commit hash, tag or branch; the commit is recorded"
    )
    gguf_file: str | None = Field(default=None, description="the GGUF file to use, if the repository holds GGUF")

    def __str__(self) -> str:
        return f"hub {self.repository}@{self.revision}"


class DirectorySource(Strict):
    """A local directory in Hugging Face layout: config.json, tokenizer files, *.safetensors."""

    kind: Literal["directory"]
    path: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"directory {self.path}"


class GgufSource(Strict):
    """A local GGUF file."""

    kind: Literal["gguf"]
    path: str = Field(min_length=1)
    sha256: Sha256 | None = None

    def __str__(self) -> str:
        return f"gguf {self.path}"


class WheelSource(Strict):
    """A file inside a wheel on the Python package index, read as a zip file, never imported or installed."""

    kind: Literal["wheel"]
    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")
    version: str = Field(min_length=1)
    sha256: Sha256 = Field(description="of the wheel")
    file: str = Field(min_length=1, description="path inside the wheel")
    file_sha256: Sha256 | None = Field(default=None, description="of the file")

    def __str__(self) -> str:
        return f"wheel {self.project}=={self.version}, {self.file}"


Source = Annotated[HubSource | DirectorySource | GgufSource | WheelSource, Field(discriminator="kind")]
