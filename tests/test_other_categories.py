"""Scenes, birds, cars, simulated robots: the whole way with generators that never saw a face, of other sizes."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_generators import tiny_stylegan2_state
from torch import Tensor

from dynode_pack.dynode_core import cli, ode
from dynode_pack.dynode_core.blending import BlendSettings, blend_clip
from dynode_pack.dynode_core.checkpoints.load import load_generator
from dynode_pack.dynode_core.editing import apply_direction, first_latent, load_direction
from dynode_pack.dynode_core.faces.framing import AlignSettings, align_as_asked
from dynode_pack.dynode_core.generators import Generator
from dynode_pack.dynode_core.inversion import InversionSettings, invert_clip
from dynode_pack.dynode_core.rendering import RenderedFaces
from dynode_pack.dynode_core.video import TensorClip, VideoWriter

KINDS = {"car": (256, 14), "isaac3d": (128, 12), "bird": (256, 14), "church": (64, 10)}
HEIGHT, WIDTH, FRAMES = 96, 132, 6


def no_landmarker() -> None:
    raise AssertionError("a landmarker was asked for, but these pictures show no face")


def checkpoint(folder: Path, kind: str) -> Path:
    """A file as users have it: NVIDIA's names in a .pth, rosinality's in a .pt."""
    state, _ = tiny_stylegan2_state(KINDS[kind][0], seed=3)
    path = folder / f"{kind}-snapshot.pt"
    if kind in ("isaac3d", "church"):
        torch.save({"g_ema": rosinality_names(state), "latent_avg": state["mapping.w_avg"]}, path)
    else:
        torch.save({"G_ema": state}, path)
    return path


def rosinality_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Canonical tensors as rosinality's code would save them."""
    parts = {
        "weight": "conv.weight",
        "affine.weight": "conv.modulation.weight",
        "affine.bias": "conv.modulation.bias",
        "noise_strength": "noise.weight",
    }
    named = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"mapping\.fc(\d)\.(weight|bias)", name):
            named[f"style.{int(match[1]) + 1}.{match[2]}"] = tensor
        elif name == "synthesis.b4.const":
            named["input.input"] = tensor[None]
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name):
            step, part = int(match[1]).bit_length() - 3, match[3]
            index = 2 * (step - 1) + int(match[2][-1] == "1") if match[2] != "torgb" else step - 1
            if part == "noise_const":
                named[f"noises.noise_{max(0, 2 * step - 1 + int(match[2] == 'conv1'))}"] = tensor[None, None]
                continue
            if match[2] == "torgb":
                layer, target = "to_rgb1" if step == 0 else f"to_rgbs.{index}", parts.get(part, "bias")
            else:
                layer, target = "conv1" if step == 0 else f"convs.{index}", parts.get(part, "activate.bias")
            if part in ("weight", "noise_strength"):
                tensor = tensor[None]
            named[f"{layer}.{target}"] = tensor.reshape(1, 3, 1, 1) if target == "bias" else tensor
    return named


def drawn_frames(generator: Generator) -> Tensor:
    """`(T, H, W, 3)`: pictures of the generator between two codes, in the middle of wider frames."""
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    a, b = generator.map(z, truncation_psi=0.7)
    codes = torch.stack([torch.lerp(a, b, float(weight)) for weight in np.linspace(0, 0.5, FRAMES)])
    with torch.no_grad():
        images = generator.synthesize(codes)
    pictures = torch.nn.functional.interpolate(images, size=(HEIGHT, HEIGHT), mode="area").permute(0, 2, 3, 1)
    frames = torch.full((FRAMES, HEIGHT, WIDTH, 3), 0.5)
    left = (WIDTH - HEIGHT) // 2
    frames[:, :, left : left + HEIGHT] = pictures.add(1).div(2).clamp(0, 1)
    return frames


def robot_frames(shared: Path) -> Tensor:
    """`(T, H, W, 3)`: the tiles of an Isaac3D traversal, in the middle of wider frames."""
    from PIL import Image

    with Image.open(shared / "assets" / "isaac3d" / "c1_robot_x-move_traversal.png") as picture:
        tiles = picture.width // picture.height
        small = picture.convert("RGB").resize((tiles * HEIGHT, HEIGHT), Image.Resampling.BOX)
    strip = torch.from_numpy(np.asarray(small).copy()).float().div(255)
    frames = torch.full((min(FRAMES, tiles), HEIGHT, WIDTH, 3), 0.5)
    left = (WIDTH - HEIGHT) // 2
    for i in range(len(frames)):
        frames[i, :, left : left + HEIGHT] = strip[:, i * HEIGHT : (i + 1) * HEIGHT]
    return frames


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_way(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    resolution, num_ws = KINDS[kind]
    generator = load_generator(checkpoint(tmp_path, kind))
    assert generator.family == f"stylegan2-{kind}-{resolution}x{num_ws}"
    is_robot = kind == "isaac3d"
    frames = robot_frames(request.getfixturevalue("shared")) if is_robot else drawn_frames(generator)
    aligned = align_as_asked(TensorClip(frames, 10), AlignSettings(framing="centre crop", crop_size=256), no_landmarker)
    left = (WIDTH - HEIGHT) / 2
    assert aligned.quads[0].tolist() == [[left, 0], [left, HEIGHT], [left + HEIGHT, HEIGHT], [left + HEIGHT, 0]]
    settings = InversionSettings(quality="normal", keyframe_every=2, max_steps=2)
    codes = invert_clip(aligned, generator, settings, perceptual=None)
    assert codes.w_plus.shape[1:] == (num_ws, 16) and codes.family == generator.family and codes.tuning is not None
    trajectory = ode.fit_trajectory(codes, ode.TrajectorySettings())
    row = torch.randn(16, generator=torch.Generator().manual_seed(1))
    torch.save(row, tmp_path / "more.pt")
    direction = load_direction("more.pt", [tmp_path], family=generator.family)
    latent = apply_direction(first_latent(trajectory), direction, 3.0, layers="0-5")
    times, fps = ode.output_times(trajectory, "x2")
    sample = ode.solve_at_times(trajectory, times, latent=latent, fps=fps)
    assert sample.w_plus.shape == (len(times), num_ws, 16)
    faces = RenderedFaces(generator, sample, resolution)
    assert faces.read(0, 2).shape == (2, 3, resolution, resolution)
    blended = torch.cat([piece for _, piece in blend_clip(aligned, faces, BlendSettings())])
    assert blended.shape == (len(times), HEIGHT, WIDTH, 3)
    columns = int(left)
    assert torch.equal(blended[::2, :, :columns], frames[:, :, :columns].expand_as(blended[::2, :, :columns]))
    change = (blended[::2] - frames).abs()[:, 24:72, columns + 24 : columns + 72]
    assert float(change.mean()) > 0.005, "the edit does not arrive in the middle of the picture"


def test_shipped_directions_of_faces_are_refused_by_a_generator_of_cars(tmp_path: Path) -> None:
    from dynode_pack.dynode_core.editing import shipped_directions
    from dynode_pack.dynode_core.types import EditedLatent

    code = torch.zeros(16, 512)
    with pytest.raises(ValueError, match="made for the generator family 'ffhq-w'"):
        latent = EditedLatent(code, code, (), "stylegan2-car-512x16")
        apply_direction(latent, shipped_directions()["smile"], 1.0)


@pytest.mark.weights
def test_the_command_line_edits_a_clip_without_a_face(tmp_path: Path) -> None:
    source = checkpoint(tmp_path, "bird")
    with VideoWriter(tmp_path / "film.mp4", Fraction(10), (HEIGHT, WIDTH)) as writer:
        writer.write(drawn_frames(load_generator(source)))
    torch.save(torch.ones(16), tmp_path / "more.pt")
    arguments = ["run", str(tmp_path / "film.mp4"), "--framing", "centre crop", "--generator", str(source)]
    arguments += ["--quality", "draft", "--max-steps", "1", "--keyframe-every", "3", "--device", "cpu"]
    arguments += ["--edit", f"{tmp_path / 'more.pt'}=2", "--cache", str(tmp_path / "cache")]
    arguments += ["--out", str(tmp_path / "out.mp4"), "--size", "128", "--no-sound", "--quiet", "--traceback"]
    assert cli.main(arguments) == 0
    from dynode_pack.dynode_core.video import FileClip

    clip = FileClip(tmp_path / "out.mp4")
    assert (clip.num_frames, clip.height, clip.width, clip.fps) == (FRAMES, HEIGHT, WIDTH, 10)
