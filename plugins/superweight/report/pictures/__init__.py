"""Pictures of a run, each with its finding in words and its figures as a table."""

from superweight.report.pictures.gallery import Drawn, Gallery, gallery
from superweight.report.pictures.picture import Picture

__all__ = ["Drawn", "Gallery", "Picture", "gallery"]
