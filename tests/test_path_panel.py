"""The panel that runs through a trajectory: what the node sends, and what the page computes from it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import inverted_clip, smooth_codes

from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory, path_in_plane

SCRIPT = Path(__file__).resolve().parent.parent / "web" / "js" / "path_in_plane.js"


def fitted(codes: np.ndarray, **options: Any) -> Any:
    clip = inverted_clip(codes, np.arange(len(codes)) / 25)
    return fit_trajectory(clip, TrajectorySettings(check_held_out=False, reference="natural cubic", **options))


def test_path_passes_the_observed_codes_in_the_plane() -> None:
    sent = path_in_plane(fitted(smooth_codes(31, axes=2), cuts="none"))
    assert json.loads(json.dumps(sent)) == sent
    assert len(sent["path"]) == len(sent["times"]) == 241 and len(sent["observed"]) == 31
    assert sent["times"][0] == 0.0 and sent["times"][-1] == 1.2 == sent["frame_times"][-1]
    assert np.abs(np.array(sent["path"])[::8] - sent["observed"]).max() < 0.01
    assert np.std(sent["path"], axis=0).min() > 0.1


def test_codes_that_move_along_a_line_and_cuts_are_sent_as_well() -> None:
    line = np.linspace(0, 1, 12)[:, None, None] * np.ones((1, 2, 4))
    line[6:] += 20
    sent = path_in_plane(fitted(line, cuts=(0.22,)))
    assert sent["cuts"] == [0.22]
    assert all(y == 0 for _, y in sent["path"] + sent["observed"])


def test_long_clips_send_no_more_than_a_page_needs() -> None:
    sent = path_in_plane(fitted(smooth_codes(900, rows=2, channels=8, axes=3), cuts="none"))
    assert len(sent["observed"]) == 400 and len(sent["path"]) == 241
    assert len(json.dumps(sent)) < 60_000


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to run the script of the page")
def test_script_finds_points_frames_and_places() -> None:
    checks = """
        const path = [[0, 0], [2, 0], [2, 4]], times = [0, 1, 3];
        const place = p.fitInto([[0, 0], [2, 4]], 100, 60, 10);
        console.log(JSON.stringify({
            last: [-1, 0, 0.9, 1, 2.9, 3, 9].map(t => p.lastNotAbove(times, t)),
            points: [-1, 0.5, 1, 2, 3, 9].map(t => p.pointAt(path, times, t)),
            alone: p.pointAt([[5, 6]], [0], 3),
            frames: [-1, 0.04, 0.06, 0.14, 9].map(t => p.frameAt([0, 0.1, 0.2], t)),
            places: [place([0, 0]), place([2, 4]), place([1, 2])],
            still: p.fitInto([[1, 1], [1, 1]], 100, 60, 10)([1, 1]),
            nearest: p.nearest(path, [2.1, 0.3]),
        }));
    """
    program = f"import * as p from {json.dumps(SCRIPT.as_uri())};\n{checks}"
    command = ["node", "--input-type=module", "--eval", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "last": [0, 0, 0, 1, 1, 2, 2],
        "points": [[0, 0], [1, 0], [2, 0], [2, 2], [2, 4], [2, 4]],
        "alone": [5, 6],
        "frames": [0, 0, 1, 1, 2],
        "places": [[40, 50], [60, 10], [50, 30]],
        "still": [50, 30],
        "nearest": 1,
    }
