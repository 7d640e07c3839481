"""Recall of FrameAlign's search for faces against faces counted by eye.

    python benchmarks/detection.py CLIPS_FOLDER --out benchmarks/results/detection.json

CLIPS_FOLDER holds `stage_cuts_small_faces_640x360.mp4` (ageitgey/face_recognition, examples). Every 16th frame was
looked at and the middle of each face written down; people far out of focus behind them were not counted. The search
sees three frames around each, as it asks neighbours to confirm what only it sees.
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

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.clip import TensorClip  # noqa: E402
from dynode_core.faces.detections import SEARCHES, detect_faces  # noqa: E402
from dynode_core.faces.landmarks import FaceLandmarker  # noqa: E402
from dynode_core.model_files import find_landmarker, find_points  # noqa: E402
from dynode_core.video import FileClip  # noqa: E402
from machine import commit  # noqa: E402

CLIP = "stage_cuts_small_faces_640x360.mp4"
Centres = dict[int, list[tuple[int, int]]]
COUNTED: dict[str, Centres] = {
    "wide shot (45 and 30 px)": {0: [(545, 66), (66, 198)], 16: [(540, 66), (63, 202)]},
    "profile, partly outside the picture": {32: [(361, 224)], 48: [(541, 141)], 80: [(473, 200)]},
    "singer, hands and microphone before the face": {
        96: [(231, 104)],
        112: [(261, 137)],
        128: [(236, 71)],
        144: [(218, 66)],
        160: [(287, 73)],
        176: [(247, 92)],
        192: [(277, 79)],
        208: [(320, 82)],
    },
    "dark audience (65 to 85 px)": {
        224: [(88, 88), (194, 112), (335, 73), (408, 135)],
        240: [(90, 98), (185, 131), (343, 91), (411, 137)],
        256: [(73, 98), (191, 131), (349, 91), (415, 137)],
        272: [(82, 98), (183, 131), (355, 91), (414, 137)],
    },
}
_SHORTEST_REACH_PX = 30


def main() -> None:
    """Count for every kind of search and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clip = FileClip(options.folder / CLIP)
    with FaceLandmarker(find_landmarker()) as landmarker:
        table = {search: recall(clip, landmarker, search) for search in SEARCHES}
    report = {"clip": CLIP, "date": datetime.date.today().isoformat(), "commit": commit(), "found": table}
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def recall(clip: FileClip, landmarker: FaceLandmarker, search: Any) -> dict[str, Any]:
    """Found and counted faces of each scene, in total, and detections where no face was counted."""
    scenes: dict[str, Any] = {}
    found_in_all = counted_in_all = others = 0
    points = find_points()
    for scene, frames in COUNTED.items():
        found = 0
        for index, centres in frames.items():
            first = max(0, index - 1)
            around = TensorClip(clip.read(range(first, index + 2)), clip.fps)
            faces = detect_faces(around, landmarker, search=search, points_path=points).faces[index - first]
            hits = sum(any(_is_at(face.box, centre) for face in faces) for centre in centres)
            found += hits
            others += sum(not any(_is_at(face.box, centre) for centre in centres) for face in faces)
        counted = sum(len(centres) for centres in frames.values())
        scenes[scene] = f"{found} of {counted}"
        found_in_all, counted_in_all = found_in_all + found, counted_in_all + counted
    return {**scenes, "all": f"{found_in_all} of {counted_in_all}", "elsewhere": others}


def _is_at(box: np.ndarray, centre: tuple[int, int]) -> bool:
    """Whether a face's `(4,)` box lies around a counted face."""
    reach = max(_SHORTEST_REACH_PX, 0.5 * float((box[2:] - box[:2]).max()))
    return float(np.linalg.norm((box[:2] + box[2:]) / 2 - np.array(centre))) < reach


if __name__ == "__main__":
    main()
