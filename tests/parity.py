"""Compare with reference numbers, and remember how close they came: `scripts/parity_table.py` makes a table of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

ORIGINAL, OWN, OPENVINO = "original", "own", "openvino"
"""What a test compares with: numbers that the original code produced; a second way of ours to the same result, such as
the plain definition beside the fast one; the OpenVINO runtime on the same weights."""


@dataclass
class Case:
    """The comparisons of one test."""

    test: str
    comparisons: int
    largest_error: float
    """max |a - b|."""
    share_of_tolerance: float
    """max |a - b| / (tolerance * max(1, max |reference|)); above 1 the test fails."""
    tolerance: float
    against: str = ORIGINAL
    """ORIGINAL, OWN or OPENVINO."""


CASES: dict[str, Case] = {}


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4, *, against: str = ORIGINAL) -> None:
    """Shapes agree, and max |a - b| <= `tolerance` * max(1, max |expected|).

    Args:
        against: where `expected` comes from: ORIGINAL, OWN or OPENVINO; one per test.
    """
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max().item()
    allowed = tolerance * max(1.0, expected.abs().max().item())
    _remember(error, allowed, tolerance, against)
    assert error <= allowed, f"differs by {error:g}"


def _remember(error: float, allowed: float, tolerance: float, against: str) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    case = CASES.setdefault(test, Case(test, 0, 0.0, 0.0, tolerance, against))
    assert case.against == against, f"{test} compares with {case.against} and with {against}: make two tests of it"
    case.comparisons += 1
    case.largest_error = max(case.largest_error, error)
    case.tolerance = max(case.tolerance, tolerance)
    case.share_of_tolerance = max(case.share_of_tolerance, error / allowed if allowed else float(error > 0))


def write_cases(path: Path) -> None:
    """All cases of this session as JSON."""
    path.write_text(json.dumps([asdict(case) for case in CASES.values()], indent=1), encoding="utf-8")
