"""The command line: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_blending_several import brighter, two_people

from dynode_pack.dynode_core import cli, cli_commands, cli_steps
from dynode_pack.dynode_core.cli_progress import StepProgress
from dynode_pack.dynode_core.cli_steps import parse_edit
from dynode_pack.dynode_core.video import FileClip, VideoWriter

REPOSITORY = Path(__file__).resolve().parent.parent
COMMANDS = ["run", "align", "invert", "import", "tune", "inspect", "fit", "edit", "solve", "compare", "render", "blend"]
COMMANDS += ["convert"]


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
        (["run", "nothing.mp4", "--out", "o.mp4", "--later", "smile"], "NAME=STRENGTH"),
        (["run", "nothing.mp4", "--out", "o.mp4", "--times", "ramp", "--ramp-speed", "100"], "ramp_speed"),
        (["solve", "t", "--out", "o.safetensors", "--edit-limit", "0.5"], "edit_limit should be 0"),
        (["solve", "t", "--out", "o.safetensors", "--times", "soon"], "soon"),
        (["solve", "t", "--out", "o.safetensors", "--latent", "a", "--latent", "b"], "folder"),
        (["solve", "t", "--out", "o", "--latent", "x/a", "--latent", "y/a"], "same name"),
        (["compare", "nothing.safetensors", "--out", "r.json"], "nothing.safetensors"),
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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--edit-limit 0.5", "edit_limit should be 0 (off) or 1 to 100"),
        ("--fit paper --steps 0", "steps should be at least 1"),
        ("--fit released --hidden 0", "hidden should be at least 1"),
        ("--fit paper --learning-rate nan", "learning_rate should be above 0"),
        ("--fit paper --image-weight -1", "--image-weight should be at least 0"),
        ("--rank 0", "rank should be between 1 and 512"),
        ("--state-dependence 2", "state_dependence should be between 0 and 1"),
        ("--path-smoothing -1", "smoothing should be between 0"),
        ("--seed -1", "--seed should be at least 0"),
        ("--vary 11", "variation should be 0 to 10"),
        ("--vary-seconds 0", "variation should be 0.01 s"),
        ("--vary-seed -1", "--vary-seed should be at least 0"),
        ("--faithful 1.5", "faithful should be between 0"),
        ("--rtol 0", "rtol should be between 1e-12 and 0.1"),
        ("--atol nan", "atol should be between 0 and 0.1"),
        ("--anchor inf", "anchor_s should be a time"),
        ("--later-at nan", "--later-at should be a finite number"),
        ("--edit-over-time 0:0,1", "no part of a strength curve"),
        ("--extrapolate -1", "extrapolate_s should be 0"),
        ("--keyframe-every -1", "keyframe_every = -1"),
        ("--max-keyframes 1", "max_keyframes = 1"),
        ("--max-steps -1", "max_steps should not be negative, but is -1"),
        ("--dilate 2", "dilate should lie between"),
        ("--feather nan", "feather should lie between"),
        ("--crf 52", "--crf should be at least 0 and at most 51"),
        ("--picture nothing.png", "nothing.png"),
        ("--onto gone.mp4", "gone.mp4"),
        ("--least-found 2", "least_found should lie between 0 and 1"),
    ],
)
def test_run_refuses_bad_values_before_it_aligns(
    asked: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "film.mp4")
    arguments = ["run", "film.mp4", "--out", "o.mp4", "--framing", "custom quad", "--box", "10,4,30,14"]
    assert cli.main([*arguments, *asked.split(), "--device", "cpu", "--cache", str(tmp_path / "cache")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]  # not a word of the alignment
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_several_clips_do_not_go_onto_one_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    for clip in clips:
        write_film(Path(clip))
    asked = ["--out", str(tmp_path / "out"), "--onto", clips[0], "--device", "cpu"]
    assert cli.main(["run", *clips, *asked]) == 2
    assert "one clip at a time" in capsys.readouterr().err


def test_the_second_person_goes_onto_the_result_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, left, right = two_people()
    files = {name: tmp_path / name for name in ("film.mp4", "left.mp4", "both.mp4")}
    with VideoWriter(files["film.mp4"], 25, crf=0) as writer:
        writer.write(frames)
    clip = FileClip(files["film.mp4"])
    place = cli_steps.Workplace(cli.build_parser().parse_args(["align", "x", "--out", "y", "--quiet"]))
    for aligned, name, more in ((left, "left.mp4", []), (right, "both.mp4", ["--onto", str(files["left.mp4"])])):
        on_file = replace(aligned, clip=clip)
        monkeypatch.setattr(cli_steps, "faces_of", lambda *_, chosen=on_file: brighter(chosen))
        asked = ["blend", "a", "s", "--out", "o.mp4", "--crf", "0", "--mode", "residual", *more]
        cli_steps.blend(cli.build_parser().parse_args(asked), place, on_file, None, files[name])
    change = FileClip(files["both.mp4"]).read(range(4)) - clip.read(range(4))
    assert float(change[:, 60, 65].min()) > 0.1 and float(change[:, 60, 190].min()) > 0.1
    assert float(change[:, :, 125:135].abs().max()) < 0.06  # colours of three files


def test_run_looks_for_every_clip_before_it_aligns_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / "film.mp4")
    clips = [str(tmp_path / "film.mp4"), str(tmp_path / "gone.mp4")]
    assert cli.main(["run", *clips, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "gone.mp4" in lines[0]


def test_traceback_is_shown_when_asked_for() -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["fit", "nothing.safetensors", "--out", "t", "--traceback"])


def test_cancel_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def cancelled(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_commands, "check_run", cancelled)
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


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    """A file of codes as `invert` leaves it: 9 keyframes at 25 fps."""
    from problems import inverted_clip, smooth_codes

    from dynode_pack.dynode_core.artifacts import save_artifact

    path = tmp_path / "codes.safetensors"
    times = np.arange(9) / 25
    save_artifact(inverted_clip(smooth_codes(9, rows=2, channels=8, axes=3), times, frame_times=times.copy()), path)
    return path


def write_latent(codes: Path, name: str, change: float) -> str:
    from dynode_pack.dynode_core.artifacts import load_artifact, save_artifact
    from dynode_pack.dynode_core.types import EditedLatent

    clip = load_artifact(codes)
    path = codes.with_name(f"{name}.safetensors")
    save_artifact(EditedLatent(clip.w_plus[0] + change, clip.w_plus[0], (f"{name}={change:g}",), clip.family), path)
    return str(path)


def write_film(path: Path) -> None:
    """5 frames of noise, 64 x 48."""
    from fractions import Fraction

    import torch

    with VideoWriter(path, Fraction(25), (48, 64)) as writer:
        writer.write(torch.rand(5, 48, 64, 3, generator=torch.Generator().manual_seed(0)))


def command(*arguments: object) -> None:
    """Run a command that should succeed."""
    assert cli.main([*(str(argument) for argument in arguments), "--device", "cpu", "--quiet", "--traceback"]) == 0


def test_training_is_offered_with_its_settings_and_kept(codes: Path, tmp_path: Path) -> None:
    from dynode_pack.dynode_core.ode import load_trajectory

    out, training = tmp_path / "t.safetensors", ["--batch", 4, "--hidden", 8, "--learning-rate", 0.003, "--no-time"]
    for variant, steps, resumed in (("paper", 2, 0), ("paper", 3, 2), ("released", 1, 0)):
        command("fit", codes, "--out", out, "--fit", variant, "--steps", steps, *training, "--cache", tmp_path / "c")
        certificate = load_trajectory(out).certificate
        assert (certificate["variant"], certificate["steps"], certificate["resumed_at"]) == (variant, steps, resumed)
    command("fit", codes, "--out", out, "--fit", "paper", "--steps", 1, "--adjoint", "--cache", tmp_path / "c")
    command("fit", codes, "--out", out, "--reference", "natural cubic", "--no-held-out")
    certificate = load_trajectory(out).certificate
    assert certificate["reference"] == "natural cubic" and "held_out_rel" not in certificate


def test_several_latents_later_edits_and_bent_curves_are_solved(codes: Path, tmp_path: Path) -> None:
    from dynode_pack.dynode_core.artifacts import load_artifact

    path, folder = tmp_path / "t.safetensors", tmp_path / "samples"
    command("fit", codes, "--out", path, "--no-held-out")
    smile, age = write_latent(codes, "smile", 0.2), write_latent(codes, "age", -0.1)
    command("solve", path, "--out", folder, "--latent", smile, "--latent", age, "--edit-limit", 0)
    samples = {one.stem: load_artifact(one) for one in folder.iterdir()}
    for name, change in (("smile", 0.2), ("age", -0.1)):
        carried = samples[name].w_plus - samples[name].base_w_plus
        assert float((carried - change).abs().max()) < 0.01
    out = tmp_path / "one.safetensors"
    later = ["--later", age, "--later-at", 0.16, "--edit-limit", 0]
    command("solve", path, "--out", out, "--latent", smile, *later)
    change = (load_artifact(out).w_plus - load_artifact(out).base_w_plus).mean(dim=(1, 2))
    assert change[0] == pytest.approx(0.2, abs=0.01)
    assert change[4:] == pytest.approx([-0.1] * 5, abs=0.01)
    command("solve", path, "--out", out, "--latent", smile, "--edit-over-time", "0:0, end:1", "--edit-limit", 0)
    change = (load_artifact(out).w_plus - load_artifact(out).base_w_plus).mean(dim=(1, 2))
    assert change[0] == pytest.approx(0, abs=1e-6) and change[-1] == pytest.approx(0.2, abs=0.01)
    for bend, middle in ((0, 4 / 25), (1, 4 * 0.125 * 2 / 25)):
        command("solve", path, "--out", out, "--times", "ease in", "--bend", bend)
        assert load_artifact(out).times[4] == pytest.approx(middle)


def test_compare_writes_the_report_and_the_sheet(
    codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    asked = ["--pictures", 0, "--keep-every", 4, "--latent", write_latent(codes, "smile", 0.2)]
    command("compare", codes, "--out", out, "--sheet", sheet, *asked)
    facts = json.loads(out.read_text())
    assert facts["kept"] == [0, 4, 8] and facts["edits"] == ["smile=0.2"]
    assert facts["carried_edit"]["cosine"] > 0.999
    assert facts["methods"]["linear morphing"]["held_out"] > 0
    assert "6 of 9 keyframes were held out" in capsys.readouterr().out
    assert sheet.stat().st_size > 10_000


def test_align_without_a_face_writes_the_crop_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dynode_pack.dynode_core.artifacts import load_artifact
    from dynode_pack.dynode_core.types import AlignedClip

    write_film(tmp_path / "film.mp4")
    out = tmp_path / "aligned.safetensors"
    asked = ["--framing", "custom quad", "--box", "10,4,30,14", "--device", "cpu"]
    assert cli.main(["align", str(tmp_path / "film.mp4"), "--out", str(out), *asked]) == 0
    assert "No face was looked for: a crop of 20 px in all 5 frames." in capsys.readouterr().err
    quads = load_artifact(out, AlignedClip).quads
    assert quads[2].tolist() == [[10, -1], [10, 19], [30, 19], [30, -1]]
    assert cli.main(["align", str(tmp_path / "film.mp4"), "--out", str(out), "--box", "10,4"]) == 2
    assert "left, top, right, bottom" in capsys.readouterr().err
