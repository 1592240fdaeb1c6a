"""The moves of weight tokenization as torch operators, each with a reference, a C++ and a CUDA twin."""

from weightgen.kernels import transforms as _transforms  # noqa: F401, gives the operators gradients and fake forms
from weightgen.kernels.ops import gather_tokens, scatter_codes, scatter_tokens
from weightgen.kernels.segments import FIELDS, Segment, segments_of, table_of

__all__ = ["FIELDS", "Segment", "gather_tokens", "scatter_codes", "scatter_tokens", "segments_of", "table_of"]
