"""The command line: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from dynode_pack.dynode_core import cli, cli_commands
from dynode_pack.dynode_core.cli_progress import StepProgress
from dynode_pack.dynode_core.cli_steps import parse_edit

REPOSITORY = Path(__file__).resolve().parent.parent
COMMANDS = ["run", "align", "invert", "fit", "edit", "solve", "render", "blend", "convert"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smile=3", ("smile", 3.0, "all")),
        ("yaw=-1.5@0-7", ("yaw", -1.5, "0-7")),
        ("my folder/age.npy=2@0,2-4", ("my folder/age.npy", 2.0, "0,2-4")),
        ("a=b.npy=1", ("a=b.npy", 1.0, "all")),
        ("smile=1@coarse (pose)", ("smile", 1.0, "coarse (pose)")),
    ],
)
def test_edit_is_read(text: str, expected: tuple[str, float, str]) -> None:
    assert parse_edit(text) == expected


@pytest.mark.parametrize("text", ["smile", "smile=", "=3", "smile=much", "smile=nan", "smile=inf", ""])
def test_edit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=STRENGTH"):
        parse_edit(text)


def test_help_of_every_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in [[], *([name] for name in COMMANDS)]:
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "--help"])
        assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)
    assert "None" not in printed and "(default: )" not in printed


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "dynode_core", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ComfyUI-DynODE ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing.mp4", "--out", "o.mp4"], "nothing.mp4"),
        (["run", "nothing.mp4", "--out", "o.mp4", "--edit", "smile"], "NAME=STRENGTH"),
        (["run", "nothing.mp4", "--out", "o.mp4", "--times", "0, 0.2, 0.1"], "increase"),
        (["run", "nothing.mp4", "--out", "o.mp4", "--times", "soon"], "soon"),
        (["run", "nothing.mp4", "--out", "o.mp4", "--quad", "1 2 3"], "8 numbers"),
        (["run", "a.mp4", "b.mp4", "--out", "o.mp4"], "folder"),
        (["run", "x/a.mp4", "y/a.mp4", "--out", "o"], "same name"),
        (["fit", "nothing.safetensors", "--out", "t"], "nothing.safetensors"),
        (["edit", "nothing.safetensors", "--out", "l"], "--edit"),
        (["convert", "nothing.npy", "--out", "x.safetensors"], "nothing.npy"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--device", "cpu"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert said in message
    assert not list(tmp_path.iterdir())


def test_traceback_is_shown_when_asked_for() -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["fit", "nothing.safetensors", "--out", "t", "--traceback"])


def test_cancel_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def cancelled(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_commands.steps, "parse_edit", cancelled)
    assert cli.main(["run", "a.mp4", "--out", "o.mp4", "--edit", "smile=1"]) == 130
    assert "cancelled" in capsys.readouterr().err


def test_progress_into_a_file_is_one_line_per_tenth() -> None:
    stream = io.StringIO()
    with StepProgress("invert", stream=stream) as progress:
        for done in range(101):
            progress(done, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12
    assert lines[-1].lstrip().startswith("invert  done in")
    assert "\r" not in stream.getvalue()


def test_progress_says_when_it_was_stopped() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), StepProgress("blend", stream=stream):
        raise ValueError("broken")
    assert "stopped" in stream.getvalue()


def test_quiet_progress_writes_nothing() -> None:
    stream = io.StringIO()
    with StepProgress("fit", quiet=True, stream=stream) as progress:
        progress(1, 2)
    assert stream.getvalue() == ""


def test_align_without_a_face_writes_the_crop_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fractions import Fraction

    import torch

    from dynode_pack.dynode_core.artifacts import load_artifact
    from dynode_pack.dynode_core.types import AlignedClip
    from dynode_pack.dynode_core.video import VideoWriter

    with VideoWriter(tmp_path / "film.mp4", Fraction(25), (48, 64)) as writer:
        writer.write(torch.rand(5, 48, 64, 3, generator=torch.Generator().manual_seed(0)))
    out = tmp_path / "aligned.safetensors"
    asked = ["--framing", "custom quad", "--box", "10,4,30,14", "--device", "cpu"]
    assert cli.main(["align", str(tmp_path / "film.mp4"), "--out", str(out), *asked]) == 0
    assert "No face was looked for: a crop of 20 px in all 5 frames." in capsys.readouterr().err
    quads = load_artifact(out, AlignedClip).quads
    assert quads[2].tolist() == [[10, -1], [10, 19], [30, 19], [30, -1]]
    assert cli.main(["align", str(tmp_path / "film.mp4"), "--out", str(out), "--box", "10,4"]) == 2
    assert "left, top, right, bottom" in capsys.readouterr().err
