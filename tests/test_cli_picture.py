"""The commands picture and transfer, and a texture on its way to blend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_editing_picture import mesh
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core import cli, cli_picture, cli_steps
from dynode_pack.dynode_core.artifacts import load_artifact, save_artifact
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.layout import network_to_bytes
from dynode_pack.dynode_core.types import AlignedClip, EditedLatent, FaceTexture, FaceTrack
from dynode_pack.dynode_core.video import FileClip, VideoWriter

SIDE = 128


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A clip of one face, its alignment and code, and its first crop with a red patch; no model files are needed."""
    from contextlib import nullcontext

    generator = tiny_mobile()
    (code,) = generator.map(torch.randn(1, 16, generator=torch.Generator().manual_seed(2)), truncation_psi=0.4)
    with torch.no_grad():
        face = ((generator.synthesize(code[None]) + 1) / 2).permute(0, 2, 3, 1).clamp(0, 1)
    paths = {name: tmp_path / name for name in ("film.mp4", "aligned", "latent", "painted.png", "out", "texture")}
    with VideoWriter(paths["film.mp4"], 25, crf=0) as writer:
        writer.write(face.repeat(3, 1, 1, 1))
    quad = np.array([(0, 0), (0, SIDE), (SIDE, SIDE), (SIDE, 0)], float)
    track = FaceTrack(
        np.stack([mesh() * SIDE] * 3), np.tile([0.0, 0, SIDE, SIDE], (3, 1)), np.ones(3, np.float32), np.ones(3, bool)
    )
    aligned = AlignedClip(FileClip(paths["film.mp4"]), np.tile(quad, (3, 1, 1)), track, SIDE)
    save_artifact(aligned, paths["aligned"])
    save_artifact(EditedLatent(code, code, (), generator.family), paths["latent"])
    picture = network_to_bytes(crop_clip(aligned, [0]))[0].copy()
    picture[50:75, 50:75] = (230, 25, 25)
    Image.fromarray(picture).save(paths["painted.png"])
    monkeypatch.setattr(cli_steps.Workplace, "generator", property(lambda _: generator))
    monkeypatch.setattr(cli_steps.Workplace, "perceptual", lambda _: None)
    monkeypatch.setattr(cli_picture, "_landmarker", lambda _: nullcontext())
    return paths


def picture_command(files: dict[str, Path], *more: str) -> int:
    command = ["picture", str(files["latent"]), "--aligned", str(files["aligned"]), "--out", str(files["out"])]
    command += ["--picture", str(files["painted.png"]), "--quality", "draft", "--device", "cpu", "--quiet", *more]
    return cli.main(command)


def test_a_painted_picture_becomes_an_edit_and_a_texture(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    assert picture_command(files, "--texture", str(files["texture"]), "--sheet", str(sheet)) == 0
    edited = load_artifact(files["out"], EditedLatent)
    assert edited.edits[0].startswith("picture=1 (") and not torch.equal(edited.w_plus_0, edited.base_w_plus_0)
    assert "The generator expresses" in capsys.readouterr().out
    assert Image.open(sheet).size == (4 * SIDE, SIDE)
    texture = load_artifact(files["texture"], FaceTexture)
    assert float(texture.alpha[0, 55:70, 55:70].min()) > 0.9 and float(texture.alpha[0, 100:, 100:].max()) == 0


def test_a_mask_says_what_counts(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "mask.png")
    assert picture_command(files, "--mask", str(tmp_path / "mask.png")) == 0
    assert load_artifact(files["out"], EditedLatent).edits == ("picture (no change)",)
    assert picture_command(files, "--mask", str(tmp_path / "mask.png"), "--texture", str(files["texture"])) == 2
    assert "no texture to write" in capsys.readouterr().err


def test_the_texture_is_on_the_faces_that_blend_gets(files: dict[str, Path]) -> None:
    assert picture_command(files, "--strength", "0", "--texture", str(files["texture"])) == 0
    aligned, latent = load_artifact(files["aligned"], AlignedClip), load_artifact(files["latent"], EditedLatent)

    def faces(*more: str) -> torch.Tensor:
        from dynode_pack.dynode_core.editing import sample_of

        options = cli.build_parser().parse_args(["blend", "a", "s", "--out", "o.mp4", *more])
        place = cli_steps.Workplace(options)
        sample = sample_of([latent, latent, latent], aligned.clip.fps)
        with torch.no_grad():
            return cli_steps.textured(options, aligned, cli_steps.faces_of(options, place, sample)).read(0, 3)

    bare, worn = faces().clamp(-1, 1), faces("--texture", str(files["texture"]))
    patch = (worn - bare)[:, :, 55:70, 55:70]
    assert bool((worn[:, 0, 55:70, 55:70] > 0.6).all()) and float(patch.abs().mean()) > 0.2
    torch.testing.assert_close(worn[:, :, 100:, 100:], bare[:, :, 100:, 100:])
    half = faces("--texture", str(files["texture"]), "--texture-strength", "0.5")
    torch.testing.assert_close((half - bare)[:, :, 60:65, 60:65], patch[:, :, 5:10, 5:10] / 2, atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="--texture-strength should be 0 to 1"):
        faces("--texture", str(files["texture"]), "--texture-strength", "2")


def test_transfer_moves_the_change_and_not_the_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    save_artifact(EditedLatent(codes[0] + codes[1], codes[0], ("smile=1",), "f"), tmp_path / "edit")
    save_artifact(EditedLatent(codes[2], codes[2], (), "f"), tmp_path / "to")
    command = ["transfer", str(tmp_path / "edit"), str(tmp_path / "to"), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--strength", "0.5", "--layers", "0-1"]) == 0
    found = load_artifact(tmp_path / "out", EditedLatent)
    torch.testing.assert_close(found.w_plus_0[:2], codes[2, :2] + 0.5 * codes[1, :2])
    assert torch.equal(found.w_plus_0[2:], codes[2, 2:]) and torch.equal(found.base_w_plus_0, codes[2])
    assert found.edits[0].startswith("transferred=0.5")
    assert cli.main(["transfer", str(tmp_path / "to"), str(tmp_path / "edit"), "--out", str(tmp_path / "o")]) == 2
    assert "changes nothing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["picture", "transfer"])
def test_help_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0 and "--strength" in capsys.readouterr().out
