"""A fitted clip against other ways to make frames in between and to edit them, on frames that were held out."""

from .codes import METHODS
from .compare import CompareSettings, Comparison, compare_paths, report_text
from .drawing import draw_comparison
from .hold_out import HoldOut
from .pictures import PictureSources, check_within, picture_sources

__all__ = [
    "METHODS",
    "CompareSettings",
    "Comparison",
    "HoldOut",
    "PictureSources",
    "check_within",
    "compare_paths",
    "draw_comparison",
    "picture_sources",
    "report_text",
]
