"""The commands around codes: options of the inversion, codes of other programs, tuning and the report."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from test_other_categories import FRAMES, HEIGHT, WIDTH, checkpoint, drawn_frames

from dynode_pack.dynode_core import cli
from dynode_pack.dynode_core.artifacts import load_artifact
from dynode_pack.dynode_core.checkpoints.load import load_generator
from dynode_pack.dynode_core.cli_inversion_options import invert_settings
from dynode_pack.dynode_core.video import VideoWriter


def invert_options(*asked: str):
    return cli.build_parser().parse_args(["invert", "a.safetensors", "--out", "c.safetensors", *asked])


def test_space_and_weights_reach_the_inversion() -> None:
    settings = invert_settings(
        invert_options("--space", "W+", "--weight-identity", "0.4", "--weight-eyes-and-mouth", "9")
    )
    assert settings.space == "W+"
    assert (settings.weights.identity, settings.weights.eyes_and_mouth) == (0.4, 9.0)
    assert invert_settings(invert_options()).weights == type(settings.weights)()
    with pytest.raises(ValueError, match="weight pyramid should be 0 or more"):
        invert_settings(invert_options("--weight-pyramid", "-1"))


@pytest.mark.weights
def test_codes_are_imported_tuned_and_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, film = checkpoint(tmp_path, "bird"), tmp_path / "film.mp4"
    generator = load_generator(source)
    with VideoWriter(film, Fraction(10), (HEIGHT, WIDTH)) as writer:
        writer.write(drawn_frames(generator))
    general = ["--generator", source, "--device", "cpu", "--quiet", "--traceback", "--cache", tmp_path / "cache"]

    def command(*arguments: object) -> str:
        assert cli.main([str(argument) for argument in (*arguments, *general)]) == 0
        return capsys.readouterr().out

    aligned, codes = tmp_path / "aligned.safetensors", tmp_path / "codes.safetensors"
    command("align", film, "--framing", "centre crop", "--crop-size", 256, "--out", aligned)
    found = np.zeros((FRAMES, generator.num_ws, generator.w_dim), np.float32) + generator.w_avg.numpy()
    np.save(tmp_path / "others.npy", found)
    command("import", tmp_path / "others.npy", "--aligned", aligned, "--out", codes)
    assert load_artifact(codes).frame_indices.tolist() == list(range(FRAMES))

    tuned = tmp_path / "tuned.safetensors"
    command("tune", aligned, codes, "--out", tuned, "--rounds", 2, "--keyframes", 2, "--rate", 0.03)
    before, after = load_artifact(codes), load_artifact(tuned)
    assert before.tuning is None and after.tuning is not None
    assert np.array_equal(before.w_plus, after.w_plus)

    report, sheet, errors = tmp_path / "report.json", tmp_path / "sheet.png", []
    for file in (codes, tuned):
        said = command("inspect", aligned, file, "--out", report, "--probe", "none", "--keyframes", 2, "--sheet", sheet)
        facts = json.loads(report.read_text())
        errors.append(facts["means"]["keyframe"]["mse"])
        assert "MSE" in said and sheet.stat().st_size > 10_000
    assert errors[1] < errors[0]
