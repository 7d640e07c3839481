"""The clips that the benchmarks of the trajectory run on, and how they take time and errors.

The synthetic clip has the spectrum of the released codes: waypoints every 10 frames along 50 axes of an (18, 512) code,
and AR(1) jitter of correlation 0.3.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY / "scripts", REPOSITORY):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from dynode_core.types import InvertedClip  # noqa: E402

ROWS, CHANNELS = 18, 512
STRONG = np.array([77.7, 40.6, 28.5, 22.1, 18.2, 13.0, 12.0, 9.5, 6.8, 4.2])
"""Standard deviations of the released codes along their principal axes."""
FPS, FAMILY = 30, "benchmark"


def timed(run: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, float]]:
    """Result of the last run, and the least wall and processor time in milliseconds."""
    walls, processors, result = [], [], None
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        result = run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return result, {"wall_ms": round(min(walls) * 1e3, 2), "cpu_ms": round(min(processors) * 1e3, 2)}


def synthetic_codes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`(count, L * D)` float32 codes of a smooth motion, and the same with jitter."""
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(seed)
    size = ROWS * CHANNELS
    weak = np.exp(-np.arange(40) / 12.0)
    weak *= np.sqrt(0.2 * np.sum(STRONG**2) / np.sum(weak**2))
    deviations = np.concatenate([STRONG, weak])
    axes = np.linalg.qr(rng.standard_normal((size, len(deviations))))[0].T
    waypoints = rng.standard_normal((count // 10 + 2, len(deviations)))
    for i in range(1, len(waypoints)):
        waypoints[i] = 0.5 * waypoints[i - 1] + np.sqrt(0.75) * waypoints[i]
    path = CubicSpline(np.arange(len(waypoints)) * 10, waypoints * deviations, bc_type="natural")
    clean = (rng.standard_normal(size) * 8.0 + path(np.arange(count)) @ axes).astype(np.float32)
    noise = rng.standard_normal((count, size), dtype=np.float32)
    for i in range(1, count):
        noise[i] = 0.3 * noise[i - 1] + np.sqrt(0.91) * noise[i]
    return clean, clean + noise * np.float32(16.4 / np.sqrt(size))


def clip_of(codes: np.ndarray, times: np.ndarray, frame_times: np.ndarray | None = None) -> InvertedClip:
    """Codes as the inverter hands them over."""
    return InvertedClip(
        torch.from_numpy(np.ascontiguousarray(codes)).float().reshape(len(times), ROWS, CHANNELS),
        times,
        np.arange(len(times)),
        np.zeros(len(times), np.float32),
        times if frame_times is None else frame_times,
        Fraction(FPS),
        FAMILY,
        "0",
    )


def released_clip() -> InvertedClip | None:
    """The authors' 11 codes, every 4th frame of a talking face, or None where they are not at hand."""
    folder = Path(os.environ.get("DYNODE_SHARED", REPOSITORY.parent / "shared"))
    path = folder / "assets" / "latents" / "dynode_released_w_plus.safetensors"
    if not path.is_file():
        return None
    from safetensors.torch import load_file

    tensors = load_file(path)
    return clip_of(tensors["w_plus"].float().reshape(11, -1).numpy(), tensors["frame_index"].numpy() / FPS)


def rel(found: np.ndarray, truth: np.ndarray, about: np.ndarray | float = 0.0) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth - about))
