"""What is wanted of the trajectory ODE, beside what one run found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST_GROWTH_MIB = 64.0
"""Peak memory that reading the codes of the most output times may take over that of the fewest."""


def targets(report: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """One entry per figure whose part was measured: what, wanted, found, met."""
    found = []
    for what, sign, limit, value in _figures(report, device.startswith("cuda")):
        met = value <= limit if sign == "<=" else value >= limit
        found.append({"what": what, "wanted": f"{sign} {limit:g}", "found": value, "met": bool(met)})
    return found


def _figures(report: dict[str, Any], cuda: bool) -> Iterator[tuple[str, str, float, float]]:
    released = report.get("released_codes", {"skipped": ""})
    if "skipped" not in released:
        yield "released codes: fit, s", "<=", 0.1, released["fit"]["wall_ms"] / 1000
        yield "released codes: observed rel", "<=", 1e-4, released["observed_rel"]
        ratio = released["held_out_rel"] / released["held_out_linear_rel"]
        yield "released codes: held out over linear", "<=", 1.01, ratio
        yield from _edits("released codes", released["edits"])
    if "long_clip" in report:
        clip = report["long_clip"]
        sparse = clip["every_4th_frame"]
        yield "1000 codes: fit, s", "<=", 1.0, clip["fit"]["wall_ms"] / 1000
        yield "1000 codes: held out over linear", "<=", 0.75, sparse["ode_faithful_0"] / sparse["linear"]
        yield "1000 codes: drift", "<=", 1e-3, max(clip["drift"], sparse["drift"])
        yield from _edits("1000 codes", clip["edits"])
    if "solvers" in report:
        faster = report["solvers"]["times_faster_than_torchdiffeq"]
        for method, limit in (("dopri5", 10.0), ("parallel", 100.0 if cuda else 50.0)):
            yield f"993 frames: {method} over torchdiffeq", ">=", limit, faster[method]["wall_ms"]
            error = report["solvers"][method]["error"] / report["solvers"]["torchdiffeq dopri5"]["error"]
            yield f"993 frames: error of {method} over that of torchdiffeq", "<=", 1.0, error
    if "skipped" not in report.get("memory", {"skipped": ""}):
        most = [part for name, part in report["memory"].items() if name.isdigit()][-1]
        yield (
            "memory of a solve at the most times, in multiples of the states",
            "<=",
            4.0,
            most["peak"] / most["states"],
        )
        streams = [part for name, part in report["memory"].items() if name.startswith("streamed")]
        growth = streams[-1]["peak"] - streams[0]["peak"]
        yield "memory of streamed codes, most less fewest times, MiB", "<=", MOST_GROWTH_MIB, growth
    if cuda and "paper_fit" in report:
        yield "paper's fit over plain torchdiffeq", ">=", 5.0, report["paper_fit"]["times_faster"]["wall_ms"]


def _edits(where: str, edits: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, float, float]]:
    for name, found in edits.items():
        yield f"{where}: cosine of an edit, {name}", ">=", 0.999, found["cosine"]
        off = max(found["norm_high"] - 1, 1 - found["norm_low"])
        yield f"{where}: change of its size, {name}", "<=", 0.02, off
