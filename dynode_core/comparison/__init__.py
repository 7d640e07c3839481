"""A fitted clip against other ways to make frames in between and to edit them, on frames that were held out."""

from .codes import METHODS
from .compare import CompareSettings, Comparison, compare_paths, report_text
from .drawing import draw_comparison
from .hold_out import HoldOut

__all__ = [
    "METHODS",
    "CompareSettings",
    "Comparison",
    "HoldOut",
    "compare_paths",
    "draw_comparison",
    "report_text",
]
