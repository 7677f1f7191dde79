"""compressed-tensors: packed integers and floats, plain ones, with scales by tensor, row, group or block."""

from superweight.artefact.formats.compressed_tensors.codes import packed_code
from superweight.artefact.formats.compressed_tensors.faults import FormatFault, faults_of
from superweight.artefact.formats.compressed_tensors.matrix import CompressedTensors
from superweight.artefact.formats.compressed_tensors.scheme import LEAVES, Scheme, is_compressed_tensors, scheme_of

__all__ = [
    "LEAVES",
    "CompressedTensors",
    "FormatFault",
    "Scheme",
    "faults_of",
    "is_compressed_tensors",
    "packed_code",
    "scheme_of",
]
