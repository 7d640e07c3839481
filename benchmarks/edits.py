"""Does an edit of the first frame hold to the last? Each direction on each clip, per frame.

    python benchmarks/edits.py CODES.safetensors ... --frames 12 --out benchmarks/results/edits.json

CODES are files of Save Codes (or of `python -m dynode_core invert`). For every direction the first code is edited, the
trajectory is solved, and each frame is rendered with and without the edit. Reported: the change of the attribute that
the direction is named after, its sign and spread over the frames; the same when each frame's code is edited by itself;
the identity from frame to frame (cosine of a face embedder) of both; and how many edits, evaluations and solutions it
took. A frame where no face is found is left out and counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.artifacts import load_artifact  # noqa: E402
from dynode_core.checkpoints.load import load_generator  # noqa: E402
from dynode_core.editing import apply_direction, first_latent, shipped_directions  # noqa: E402
from dynode_core.editing.latent import applied_rows  # noqa: E402
from dynode_core.faces.landmarks import FaceLandmarker  # noqa: E402
from dynode_core.generators.protocol import Generator  # noqa: E402
from dynode_core.generators.tuning import with_tuning  # noqa: E402
from dynode_core.layout import network_to_bytes  # noqa: E402
from dynode_core.memory import reuse_large_blocks  # noqa: E402
from dynode_core.metrics.identity import IdentityEmbedder  # noqa: E402
from dynode_core.model_files import find_landmarker  # noqa: E402
from dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times  # noqa: E402
from dynode_core.types import InvertedClip  # noqa: E402
from machine import commit, processor  # noqa: E402
from make_directions import attributes, more_attributes  # noqa: E402

STRENGTHS = {"yaw": 1.0, "pitch": 1.0}
STRENGTH = 2.0
MOST_SPREAD = 0.25
"""Standard deviation of the change over the frames, as a share of its mean."""
SIZE = 512
IN_DEGREES = ("yaw", "pitch", "roll")


class Instruments:
    """What looks at a picture."""

    def __init__(self, landmarker: FaceLandmarker, embedder: IdentityEmbedder | None) -> None:
        self._landmarker, self._embedder = landmarker, embedder

    def look(self, image: Tensor) -> tuple[dict[str, float], np.ndarray | None] | None:
        """Attributes and embedding of the face in `(1, 3, S, S)`; None if there is none."""
        picture = network_to_bytes(image)[0]
        faces = self._landmarker.detect(picture)
        if not faces or faces[0].blendshapes is None or faces[0].pose_deg is None:
            return None
        shapes = torch.from_numpy(faces[0].blendshapes[None])
        found = attributes(shapes, torch.from_numpy(faces[0].pose_deg[None]))
        found |= more_attributes(shapes, torch.from_numpy(network_to_bytes(F.avg_pool2d(image, SIZE // 64))))
        embedding = None if self._embedder is None else self._embedder.embed(picture, faces[0].landmarks)
        return {name: float(value[0]) for name, value in found.items()}, embedding


@torch.no_grad()
def look_at_codes(codes: Tensor, generator: Generator, instruments: Instruments) -> list[Any]:
    """What is seen on each of `(N, L, D)` codes."""
    return [instruments.look(generator.synthesize(code[None], size=SIZE).float().cpu()) for code in codes]


def change_of(seen: list[Any], before: list[Any], name: str) -> dict[str, Any]:
    """Change of one attribute per frame, its sign and spread.

    A blendshape lies between 0 and 1, so a mouth that is open already can hardly open further: for these the spread is
    also given on their log-odds, where the ends of the scale are infinitely far.
    """
    pairs = [(a[0][name], b[0][name]) for a, b in zip(before, seen, strict=True) if a and b]
    if not pairs:
        return {"frames": 0}
    first, after = np.array(pairs).T
    changes = after - first
    same_sign, spread = bool((np.sign(changes) == np.sign(changes.mean())).all()), spread_of(changes)
    found = {
        "frames": len(changes),
        "mean": round(float(changes.mean()), 4),
        "spread": round(spread, 3),
        "same_sign": same_sign,
        "holds": same_sign and spread <= MOST_SPREAD,
        "before": np.round(first, 3).tolist(),
        "after": np.round(after, 3).tolist(),
    }
    if name not in IN_DEGREES:
        found["spread_of_log_odds"] = round(spread_of(log_odds(after) - log_odds(first)), 3)
    return found


def spread_of(changes: np.ndarray) -> float:
    """Standard deviation as a share of the mean."""
    mean = float(changes.mean())
    return float(changes.std() / abs(mean)) if mean else float("inf")


def log_odds(values: np.ndarray) -> np.ndarray:
    """Of values in [0, 1]; the last hundredth at either end is taken for its edge."""
    inside = values.clip(0.01, 0.99)
    return np.log(inside / (1 - inside))


def frame_to_frame(seen: list[Any]) -> float | None:
    """Mean cosine of the embeddings of neighbouring frames."""
    cosines = [float(a[1] @ b[1]) for a, b in zip(seen, seen[1:], strict=False) if a and b and a[1] is not None]
    return round(float(np.mean(cosines)), 4) if cosines else None


def measure_clip(path: Path, generator: Generator, instruments: Instruments, options: Any) -> dict[str, Any]:
    """All directions on one clip."""
    inverted = load_artifact(path, InvertedClip)
    tuned = with_tuning(generator, inverted.tuning)
    trajectory = fit_trajectory(inverted, TrajectorySettings())
    times = np.linspace(inverted.times[0], inverted.times[-1], options.frames)
    base = solve_at_times(trajectory, times)
    before = look_at_codes(base.w_plus[:], tuned, instruments)
    table: dict[str, Any] = {"identity_before": frame_to_frame(before)}
    for name, direction in shipped_directions().items():
        if options.only and name not in options.only:
            continue
        strength = STRENGTHS.get(name, STRENGTH)
        latent = apply_direction(first_latent(trajectory), direction, strength)
        sample = solve_at_times(trajectory, times, latent=latent)
        rows = strength * applied_rows(direction, inverted.w_plus[0], inverted.family)
        by_frame = base.w_plus[:] + rows
        carried = look_at_codes(sample.w_plus[:], tuned, instruments)
        each = look_at_codes(by_frame, tuned, instruments)
        table[name] = {
            "strength": strength,
            "carried": change_of(carried, before, name),
            "each_frame": change_of(each, before, name),
            "identity_carried": frame_to_frame(carried),
            "identity_each_frame": frame_to_frame(each),
            "largest_difference_of_codes": round(float((sample.w_plus[:] - by_frame).abs().max()), 5),
            "edits": {"carried": 1, "each_frame": len(times)},
            "evaluations_in_sequence": sample.nfe,
        }
        print(path.stem, name, json.dumps(table[name]), flush=True)
    return table


def main() -> None:
    """Measure all clips and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codes", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--only", nargs="*", help="names of directions; all that ship without it")
    parser.add_argument("--identity", type=Path, help="ONNX network of 112 px RGB crops, ArcFace style")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    generator = load_generator()
    embedder = None if options.identity is None else IdentityEmbedder(options.identity)
    with reuse_large_blocks(), FaceLandmarker(find_landmarker()) as landmarker:
        instruments = Instruments(landmarker, embedder)
        clips = {path.stem: measure_clip(path, generator, instruments, options) for path in options.codes}
    rows = [row for clip in clips.values() for row in clip.values() if isinstance(row, dict)]
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": processor(),
        "frames": options.frames,
        "held": f"{sum(row['carried'].get('holds', False) for row in rows)} of {len(rows)}",
        "clips": clips,
    }
    print(report["held"])
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
