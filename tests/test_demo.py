"""scripts/demo.py: how the demo changes the workflow, and what it prints."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import demo
from comfy_client import NodeRun, Run
from progress_lines import ProgressLines


def workflow() -> dict[str, Any]:
    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}

    return {
        "1": node("LoadVideo", file="other.mp4"),
        "2": node("DynODE_SolveAtTimes", trajectory=["9", 0], latent=["8", 0], mode="factor", **{"mode.factor": 4}),
        "3": node("DynODE_Render", sample=["2", 0], generator=["7", 0], size="1024", picture_frames="first frame"),
        "4": node("SaveVideo", video=["6", 0], filename_prefix="x"),
    }


def test_sheet_takes_first_and_last_frame_and_few_in_between() -> None:
    times = [index / 10 for index in range(101)]
    assert demo.sheet_times(times) == [0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert demo.sheet_times([0.0, 0.04]) == [0.0, 0.04]
    assert demo.sheet_times([0.0]) == [0.0]


def test_clip_goes_in_and_the_main_branch_stays_as_it_was() -> None:
    before = workflow()
    prompt = demo.set_up(before, "mine.mp4", [0.0, 1.0])
    assert prompt["1"]["inputs"]["file"] == "mine.mp4"
    assert prompt["2"] == workflow()["2"] and prompt["3"] == workflow()["3"]
    assert before == workflow(), "the prompt that was handed in was changed"
    edited = before | {"8": {"class_type": "DynODE_EditFirstLatent", "inputs": {"strength": 3}}}
    assert demo.set_up(edited, "mine.mp4", [0.0])["8"]["inputs"]["strength"] == 3
    assert demo.set_up(edited, "mine.mp4", [0.0], -2.0)["8"]["inputs"]["strength"] == -2.0


def test_sheet_branches_differ_only_in_the_edit() -> None:
    prompt = demo.set_up(workflow(), "mine.mp4", [0.0, 1.5])
    inverted, edited = (prompt[f"{branch}-solve"]["inputs"] for branch in ("inverted", "edited"))
    assert edited == {**inverted, "latent": ["8", 0]}
    assert inverted["mode.times"] == "0.000000, 1.500000"
    assert "mode.factor" not in inverted
    assert prompt["edited-render"]["inputs"]["picture_frames"] == "all frames"


def test_workflow_without_a_needed_node_is_refused_by_name() -> None:
    prompt = workflow()
    del prompt["4"]
    with pytest.raises(demo.DemoFailure, match="SaveVideo"):
        demo.set_up(prompt, "mine.mp4", [0.0])


def test_progress_in_a_file_is_a_few_lines_per_node() -> None:
    stream, run = io.StringIO(), Run()
    lines = ProgressLines(stream)
    run.nodes["1"] = NodeRun("Invert", "DynODE_Invert")
    for done in range(1, 101):
        run.nodes["1"].progress.append((done, 100))
        lines("progress", run, "1")
    run.nodes["1"].seconds = 12.34
    lines("finished", run, "1")
    printed = stream.getvalue().splitlines()
    assert [line.split()[-3] for line in printed[:-1]] == ["25", "50", "75"]
    assert printed[-1].split() == ["Invert", "12.3", "s"]


def test_a_part_of_a_clip_keeps_its_frames_and_its_rate(tmp_path: Path) -> None:
    from dynode_pack.dynode_core.video import FileClip, VideoWriter

    grey = torch.linspace(0.2, 0.8, 20)[:, None, None, None].expand(20, 32, 48, 3)
    with VideoWriter(tmp_path / "whole.mp4", Fraction(24000, 1001), (32, 48)) as writer:
        writer.write(grey.contiguous())
    demo.cut(tmp_path / "whole.mp4", tmp_path / "part.mp4", 0.2, 0.5)
    part, first = FileClip(tmp_path / "part.mp4"), 5  # frame 4 is shown at 0.167 s, frame 5 at 0.209 s
    assert (part.num_frames, part.height, part.width, part.fps) == (7, 32, 48, Fraction(24000, 1001))
    shown = part.read(list(range(7))).mean(dim=(1, 2, 3))
    torch.testing.assert_close(shown, grey[first : first + 7].mean(dim=(1, 2, 3)), atol=0.02, rtol=0)
