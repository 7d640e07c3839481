"""Measure whether a path learned from the clip itself predicts left-out frames better than the plain reference.

    python benchmarks/learned_path.py --out benchmarks/results/learned-path.json

The pack offers it on request only (reference "learned"); benchmarks/README.md says why. The clips are synthetic, in the
space of the released codes' principal axes: five rounds of one closed curve at a constant and at a varying pace (the
best case for learning), seen every 7th frame, and motion that never comes back.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.ode.learned import fit_learned  # noqa: E402
from dynode_core.ode.reference import Reference, fit_reference  # noqa: E402
from machine import machine  # noqa: E402


def _rel(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth - truth.mean(0)))


def released_axes() -> tuple[np.ndarray, float]:
    """`(11, 10)` released codes along their principal axes, in units of their rms, and that unit."""
    from safetensors.torch import load_file

    folder = Path(os.environ.get("DYNODE_SHARED", REPOSITORY.parent / "shared"))
    path = folder / "assets" / "latents" / "dynode_released_w_plus.safetensors"
    codes = load_file(path)["w_plus"].float().reshape(11, -1).numpy()
    centred = codes - codes.mean(0)
    states = centred @ np.linalg.svd(centred, full_matrices=False)[2][:10].T
    unit = float(np.sqrt((states**2).mean()))
    return states / unit, unit


def rounds(pace: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times, true states, indices of keyframes, and states seen there: a closed curve through six released codes."""
    from scipy.interpolate import CubicSpline

    states, unit = released_axes()
    rng = np.random.default_rng(seed)
    corners = states[[0, 3, 5, 7, 8, 10, 0]]
    curve = CubicSpline(np.linspace(0, 1, 7), corners, bc_type="periodic")
    frames = np.arange(181.0)
    clean = curve((frames / 36 + pace * np.sin(2 * np.pi * frames / 97)) % 1)
    seen = np.arange(0, 181, 7)
    return frames / 180, clean, seen, clean[seen] + rng.standard_normal((len(seen), 10)) * 8 / unit / np.sqrt(10)


def wandering() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same for 400 frames of motion that never comes back, seen every 4th frame."""
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(0)
    waypoints = rng.standard_normal((42, 10))
    for i in range(1, len(waypoints)):
        waypoints[i] = 0.5 * waypoints[i - 1] + np.sqrt(0.75) * waypoints[i]
    strengths = np.array([77.7, 40.6, 28.5, 22.1, 18.2, 13.0, 12.0, 9.5, 6.8, 4.2]) / 35
    clean = CubicSpline(np.arange(42) * 10, waypoints * strengths, bc_type="natural")(np.arange(400))
    seen = np.arange(0, 400, 4)
    return np.arange(400) / 399, clean, seen, clean[seen] + 0.05 * rng.standard_normal((100, 10))


def measure(times: np.ndarray, clean: np.ndarray, seen: np.ndarray, states: np.ndarray) -> dict[str, Any]:
    """Errors at the frames that were not seen, and what cross-validation on the seen ones says."""

    def plain(at: np.ndarray, values: np.ndarray) -> Reference:
        return fit_reference(at, values).reference

    knots, left = times[seen], np.setdiff1d(np.arange(seen[-1]), seen)
    begin = time.process_time()
    learned = fit_learned(knots, states, plain)
    seconds = time.process_time() - begin
    straight = np.stack([np.interp(times[left], knots, column) for column in states.T], axis=1)
    return {
        "keyframes": len(seen),
        "linear": _rel(straight, clean[left]),
        "plain": _rel(plain(knots, states).position(times[left]), clean[left]),
        "learned": _rel(learned.reference.position(times[left]), clean[left]),
        "cross_validated_learned": learned.learned_error,
        "cross_validated_plain": learned.plain_error,
        "would_be_used": learned.is_better,
        "cpu_s": round(seconds, 1),
    }


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine()}
    for name, clip in (
        ("rounds at constant pace", rounds(0.0, 1)),
        ("rounds at varying pace", rounds(0.15, 2)),
        ("motion that never comes back", wandering()),
    ):
        report[name] = measure(*clip)
        print(json.dumps({name: report[name]}, indent=2), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
