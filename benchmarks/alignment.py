"""Frames per second of each step of FrameAlign on a real clip.

    python benchmarks/alignment.py CLIP [CLIP ...] --out benchmarks/results/alignment-<machine>.json

Reading, looking for cuts, one pass of the landmarker, the search in tiles (which runs where that pass finds no face),
following a face into a neighbouring frame, and cutting out crops of three sizes. Every figure is the least of --repeats
over the first --frames frames; what mediapipe does on threads of its own shows in the processor time only.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from blend import timed

from dynode_core.faces.align import align_clip
from dynode_core.faces.crop import crop_clip
from dynode_core.faces.cuts import CutDetector
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.faces.search import FaceSearch
from dynode_core.layout import pictures_to_bytes
from dynode_core.model_files import find_landmarker
from dynode_core.video import FileClip
from machine import machine


def main() -> None:
    """Time every clip and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=24, help="of each clip")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = {path.name: speed_of(path, options.frames, options.repeats) for path in options.clips}
    about = machine() | {"threads": options.threads}
    text = json.dumps({"machine": about, "steps": steps}, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


def speed_of(path: Path, num_frames: int, repeats: int) -> dict[str, Any]:
    """Milliseconds per frame of every step on the first frames of a clip."""
    whole = FileClip(path)
    clip = FileClip(path, duration_s=(num_frames - 0.5) / float(whole.fps))
    pictures = [pictures_to_bytes(frames[None])[0] for _, chunk in clip.chunks(8) for frames in chunk]
    count = len(pictures)
    task = find_landmarker()
    with FaceLandmarker(task) as landmarker, FaceSearch(task) as search:
        aligned = align_clip(clip, landmarker)
        faces = [landmarker.detect(picture) for picture in pictures]
        pairs = [(known[0], after) for known, after in zip(faces, pictures[1:], strict=False) if known]

        def look_for_cuts() -> None:
            cuts = CutDetector()
            for picture in pictures:
                cuts.add(picture)

        work: dict[str, tuple[Callable[[], object], int]] = {
            "read": (lambda: [None for _ in clip.chunks(8)], count),
            "cuts": (look_for_cuts, count),
            "landmarks": (lambda: [landmarker.detect(picture) for picture in pictures], count),
            "search": (lambda: [search.search(picture, []) for picture in pictures[:4]], min(4, count)),
            "follow": (lambda: [search.near(picture, face) for face, picture in pairs[:4]], max(1, min(4, len(pairs)))),
            "align, all of it": (lambda: align_clip(clip, landmarker), count),
        }
        for size in (256, 512, 1024):
            work[f"crop to {size}"] = (lambda side=size: crop_clip(aligned, range(count), side), count)
        return {
            "frame": f"{clip.width} x {clip.height}",
            "frames": count,
            **{name: timed(step, frames, repeats) for name, (step, frames) in work.items()},
        }


if __name__ == "__main__":
    main()
