"""What a generator cannot draw, carried with the mesh of the face."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_faces_mesh_warp import mesh

from dynode_pack.dynode_core.blending import BlendSettings, blend_clip
from dynode_pack.dynode_core.blending.texture import light_of, make_texture, unmet_share
from dynode_pack.dynode_core.blending.texture_light import TextureLight
from dynode_pack.dynode_core.blending.textured import TexturedFaces
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.mesh_warp import FaceMesh
from dynode_pack.dynode_core.types import AlignedClip, FaceTexture, FaceTrack
from dynode_pack.dynode_core.video import TensorClip

SIZE = 96
NUM_FRAMES = 4
STEP = (2 / SIZE, -1 / SIZE)
"""How far the face moves inside its crop from frame to frame."""


@dataclass(frozen=True)
class Faces:
    """Given pictures as rendered faces."""

    edited: torch.Tensor
    base: torch.Tensor
    times: np.ndarray
    fps: Fraction = Fraction(25)

    @property
    def size(self) -> int:
        return int(self.edited.shape[-1])

    @property
    def num_frames(self) -> int:
        return len(self.times)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.edited[start:stop]

    def read_base(self, start: int, stop: int) -> torch.Tensor | None:
        return self.base[start:stop]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Fine detail in [-0.6, 0.6]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6


def clip(step: tuple[float, float] = STEP) -> AlignedClip:
    """Frames of noise whose quad is the whole frame; only the landmarks move."""
    frames = (noise(NUM_FRAMES, SIZE, SIZE, 3) + 1) / 2
    quad = np.array([(0, 0), (0, SIZE), (SIZE, SIZE), (SIZE, 0)], float)
    landmarks = np.stack([(mesh() + i * np.array(step)) * SIZE for i in range(NUM_FRAMES)])
    boxes = np.tile([0.0, 0, SIZE, SIZE], (NUM_FRAMES, 1))
    track = FaceTrack(landmarks, boxes, np.ones(NUM_FRAMES, np.float32), np.ones(NUM_FRAMES, bool))
    return AlignedClip(TensorClip(frames, 25), np.tile(quad, (NUM_FRAMES, 1, 1)), track, crop_size=SIZE)


def spot(centre: tuple[float, float] = (0.5, 0.5), radius: float = 0.12) -> torch.Tensor:
    """`(1, SIZE, SIZE)`: 1 inside of a disc."""
    at = (torch.arange(SIZE) + 0.5) / SIZE
    return ((at[None] - centre[0]).square() + (at[:, None] - centre[1]).square() < radius**2).float()[None]


def smooth_faces(aligned: AlignedClip) -> Faces:
    """What a generator without detail makes, with an edit that tints."""
    base = torch.zeros(NUM_FRAMES, 3, SIZE, SIZE) + torch.linspace(-0.3, 0.3, SIZE)
    return Faces(base + torch.tensor([0.05, 0.0, -0.05])[:, None, None], base, aligned.clip.frame_times)


def texture_of(aligned: AlignedClip, faces: Faces, painted: torch.Tensor, changed: torch.Tensor) -> FaceTexture:
    source = crop_clip(aligned, [0], SIZE)[0]
    landmarks = aligned.track.landmarks[0] / SIZE
    return make_texture(source, painted, faces.base[0], faces.edited[0], changed, landmarks)


@pytest.mark.parametrize("mode", ["residual", "adaptive", "replace"])
def test_every_mode_gives_the_painted_picture_back_at_its_own_frame(mode: str) -> None:
    aligned = clip()
    faces, changed = smooth_faces(aligned), spot()
    source = crop_clip(aligned, [0], SIZE)[0]
    painted = source * (1 - changed) + changed * noise(3, SIZE, SIZE, seed=1)
    carried = TexturedFaces(faces, aligned, texture_of(aligned, faces, painted, changed), smoothing=0)
    settings = BlendSettings(mode=mode, region="whole crop")
    frames = next(blend_clip(aligned, carried, settings))[1]
    inside = spot(radius=0.09)[0] > 0
    wanted = (painted.permute(1, 2, 0)[inside] + 1) / 2
    assert float((frames[0][inside] - wanted).abs().mean()) < 0.012
    plain = next(blend_clip(aligned, faces, settings))[1]
    assert float((plain[0][inside] - wanted).abs().mean()) > 0.1


def test_the_texture_moves_with_the_landmarks() -> None:
    aligned = clip()
    faces, changed = smooth_faces(aligned), spot()
    painted = crop_clip(aligned, [0], SIZE)[0] * (1 - changed) - 0.9 * changed
    carried = TexturedFaces(faces, aligned, texture_of(aligned, faces, painted, changed), smoothing=0)
    added = carried.read(0, NUM_FRAMES) - faces.read(0, NUM_FRAMES)
    for i in (1, 3):
        expected = torch.roll(added[0], shifts=(-i, 2 * i), dims=(1, 2))
        torch.testing.assert_close(added[i], expected, atol=0.02, rtol=0)
    assert float(added[0].abs().max()) > 0.4


def test_without_alpha_or_strength_faces_stay_what_they_are() -> None:
    aligned = clip()
    faces, changed = smooth_faces(aligned), spot()
    painted = crop_clip(aligned, [0], SIZE)[0] - 0.5 * changed
    texture = texture_of(aligned, faces, painted, changed)
    carried = TexturedFaces(faces, aligned, texture, strength=0)
    assert torch.equal(carried.read(0, 2), faces.read(0, 2))
    base = carried.read_base(1, 2)
    assert base is not None and torch.equal(base, faces.base[1:2])
    assert float(carried.read_shown(0, 2).max()) == 0


def test_chunks_do_not_matter_and_nothing_handed_in_is_changed() -> None:
    aligned = clip()
    faces, changed = smooth_faces(aligned), spot()
    painted = crop_clip(aligned, [0], SIZE)[0] - 0.5 * changed
    texture = texture_of(aligned, faces, painted, changed)
    before = texture.alpha.clone(), texture.shown.clone(), faces.edited.clone()
    carried = TexturedFaces(faces, aligned, texture)
    whole = carried.read(0, NUM_FRAMES)
    assert torch.equal(whole, torch.cat([carried.read(i, i + 1) for i in range(NUM_FRAMES)]))
    assert all(torch.equal(a, b) for a, b in zip(before, (texture.alpha, texture.shown, faces.edited), strict=True))


def test_a_face_that_is_away_carries_nothing() -> None:
    aligned = clip()
    present = np.array([True, True, False, True])
    track = FaceTrack(
        aligned.track.landmarks, aligned.track.boxes, aligned.track.scores, aligned.track.detected, present=present
    )
    aligned = AlignedClip(aligned.clip, aligned.quads, track, SIZE)
    faces, changed = smooth_faces(aligned), spot()
    painted = crop_clip(aligned, [0], SIZE)[0] - 0.5 * changed
    carried = TexturedFaces(faces, aligned, texture_of(aligned, faces, painted, changed))
    added = (carried.read(0, NUM_FRAMES) - faces.read(0, NUM_FRAMES)).abs().amax(dim=(1, 2, 3))
    assert added[2] == 0 and bool((added[[0, 1, 3]] > 0.1).all())


def test_what_the_generator_does_itself_is_not_carried() -> None:
    asked = torch.zeros(3, SIZE, SIZE)
    asked[:, :, : SIZE // 2] = 0.5
    done = asked.clone()
    done[:, : SIZE // 2] = 0
    share = unmet_share(asked, done)[0]
    assert float(share[10, 10]) == 1 and float(share[-10, 10]) == 0 and float(share[10, -10]) == 0


def test_light_is_what_is_smooth_and_detail_is_not() -> None:
    base, fine = torch.zeros(3, SIZE, SIZE), noise(3, SIZE, SIZE) * 0.3
    light = light_of(base + 0.2 + fine, base)
    assert float((light - 0.2).abs().mean()) < 0.03


def test_a_texture_of_another_kind_of_landmarks_is_refused() -> None:
    aligned = clip()
    texture = FaceTexture(
        torch.zeros(3, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 8, 8), np.random.default_rng(0).random((68, 2))
    )
    with pytest.raises(ValueError, match="68 landmarks, but this clip has 478"):
        TexturedFaces(smooth_faces(aligned), aligned, texture)


def lit(aligned: AlignedClip, light: torch.Tensor) -> AlignedClip:
    """The clip with frame i in light `light[i]` `(W)` or one number, from left to right."""
    frames = aligned.clip.read(range(NUM_FRAMES)) * 0.2 + 0.4
    return replace(aligned, clip=TensorClip(frames * light.reshape(NUM_FRAMES, 1, -1, 1), 25))


@pytest.mark.parametrize("follow_light", [True, False])
def test_the_texture_gets_darker_with_the_skin(follow_light: bool) -> None:
    aligned = lit(clip(step=(0.0, 0.0)), torch.tensor([1.0, 0.5, 1.0, 1.3]))
    faces, changed = smooth_faces(aligned), spot()
    painted = crop_clip(aligned, [0], SIZE)[0] - 0.6 * changed
    texture = texture_of(aligned, faces, painted, changed)
    carried = TexturedFaces(faces, aligned, texture, smoothing=0, follow_light=follow_light)
    added = carried.read(0, NUM_FRAMES) - faces.read(0, NUM_FRAMES)
    inside = (spot(radius=0.09)[0] > 0).expand(3, -1, -1)
    strength = [float(picture[inside].mean() / added[0][inside].mean()) for picture in added]
    assert strength == pytest.approx([1, 0.5, 1, 1.3] if follow_light else [1, 1, 1, 1], abs=0.04)


def test_light_from_one_side_counts_on_that_side() -> None:
    shade = torch.ones(NUM_FRAMES, SIZE)
    shade[1] = torch.linspace(0.6, 1.2, SIZE)
    light = TextureLight(lit(clip(step=(0.0, 0.0)), shade), 0, mesh())
    places = FaceMesh(mesh()).places(mesh(), SIZE)
    gain = light.gain(1, places)[0]
    middle = slice(SIZE // 3, 2 * SIZE // 3)
    for column in (34, 61):
        assert float(gain[middle, column].mean()) == pytest.approx(float(shade[1, column]), abs=0.05)
    assert float((light.gain(0, places) - 1).abs().max()) == 0
