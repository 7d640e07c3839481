"""Feed-forward encoders: pictures to W+ codes in one pass (e4e, pSp) or a few (ReStyle)."""

from .encode import StyleEncoder
from .load import load_encoder

__all__ = ["StyleEncoder", "load_encoder"]
