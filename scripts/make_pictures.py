"""Make the pictures of the README, the help pages and the workflow templates, from faces of people who do not exist.

python scripts/make_pictures.py [readme] [help] [templates]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from dynode_core.blending.region import unit_landmarks
from dynode_core.blending.shots import Shots
from dynode_core.blending.texture import make_texture
from dynode_core.blending.textured import TexturedFaces
from dynode_core.checkpoints.load import load_generator
from dynode_core.clip import TensorClip
from dynode_core.editing import sampled_latents, shipped_directions
from dynode_core.editing.discovery import sefa
from dynode_core.editing.picture_change import compare_pictures
from dynode_core.editing.strip import draw_directions
from dynode_core.faces.align import align_clip
from dynode_core.faces.crop import crop_clip
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.generators.protocol import Generator
from dynode_core.generators.sampling import sample_codes
from dynode_core.layout import bytes_to_pictures, network_to_bytes, network_to_pictures
from dynode_core.model_files import find_landmarker
from dynode_core.rendering import PictureFaces, render
from dynode_core.rows import rows_of

SEED = 11
STRIP_SEEDS = (2, 1)
STRIP_STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
STRIP_TILE_PX = 112
FOUND = (4, 3, 7)
"""Which of the directions that SeFa finds in the middle rows are shown."""
CHEEKS = ((116, 117, 118, 100), (345, 346, 347, 329))
"""Landmarks of the mesh below the eyes, along which face paint is drawn."""
PAINT_BELOW, PAINT_WIDTH_PX = 0.03, 44
TILE_PX = 256
DIRECTIONS = {
    "smile": 3.0,
    "mouth open": 3.0,
    "eyes closed": 3.0,
    "brows up": 3.0,
    "yaw": 2.0,
    "pitch": 2.0,
    "roll": 3.0,
}


def faces(generator: Generator, codes: list[torch.Tensor]) -> list[np.ndarray]:
    """`(TILE_PX, TILE_PX, 3)` uint8 picture of each `(L, D)` code."""
    return list(network_to_bytes(render(generator, torch.stack(codes), size=TILE_PX)))


def moved(code: torch.Tensor, name: str, strength: float) -> torch.Tensor:
    """The code after an edit along a shipped direction."""
    return code + strength * rows_of(shipped_directions()[name], len(code))


def path(code: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Codes of a head that turns and begins to speak."""
    return [
        moved(moved(code, "yaw", 1.6 * (2 * t - 1)), "mouth open", 1.5 * float(np.sin(np.pi * t)))
        for t in np.linspace(0, 1, count)
    ]


def save(rows: list[list[np.ndarray]], file: Path) -> None:
    """Tiles in rows, as JPEG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(file, quality=88)


def strip(generator: Generator, name: str) -> np.ndarray:
    """What one shipped direction does to two faces, with its strengths written above."""
    codes = sample_codes(generator, STRIP_SEEDS, truncation_psi=0.7)
    direction = shipped_directions()[name]
    rows = [
        draw_directions(latent, generator, [direction], STRIP_STRENGTHS, tile_px=STRIP_TILE_PX)
        for latent in sampled_latents(codes, generator)
    ]
    return np.vstack([rows[0], *(row[-STRIP_TILE_PX - 4 :] for row in rows[1:])])


def painted(generator: Generator, codes: list[torch.Tensor]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A clip, and the same wearing a texture that was painted on its first frame."""
    clip = TensorClip(network_to_pictures(render(generator, torch.stack(codes), size=512)), 25)
    with FaceLandmarker(find_landmarker()) as landmarker:
        aligned = align_clip(clip, landmarker)
    crops = crop_clip(aligned, range(len(codes)))
    landmarks = unit_landmarks(aligned, Shots(aligned), 0, 0.0, 0.0)
    paint = Image.new("L", (2 * 512, 2 * 512))
    for cheek in CHEEKS:
        line = [(x, y + PAINT_BELOW) for x, y in landmarks[list(cheek)]]
        ImageDraw.Draw(paint).line([(2 * 512 * x, 2 * 512 * y) for x, y in line], 210, PAINT_WIDTH_PX)
    mask = np.asarray(paint.resize((512, 512), Image.Resampling.BOX))[..., None] / 255
    picture = ((1 - mask) * network_to_bytes(crops[:1])[0] + mask * np.array([31, 95, 168])).astype(np.uint8)
    change = compare_pictures(aligned, bytes_to_pictures(picture)[None])
    crop = change.source[0]
    texture = make_texture(crop, change.painted[0], crop, crop, change.changed[0], landmarks)
    faces = PictureFaces(network_to_pictures(crops), clip.frame_times, clip.fps)
    worn = TexturedFaces(faces, aligned, texture, smoothing=0).read(0, len(codes))
    small = [torch.nn.functional.avg_pool2d(images, 512 // TILE_PX) for images in (crops, worn)]
    return list(network_to_bytes(small[0])), list(network_to_bytes(small[1]))


def sampled(generator: Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of the two people of the README."""
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(SEED))
    woman, other = generator.map(z, truncation_psi=0.7)[1:]
    return woman, other


def make_readme(generator: Generator) -> None:
    woman, _ = sampled(generator)
    clip = path(woman, 4)
    save([faces(generator, clip), smiling(generator, clip)], REPOSITORY / "docs" / "edit.jpg")
    rows = [
        faces(generator, [moved(woman, name, -strength), woman, moved(woman, name, strength)])
        for name, strength in DIRECTIONS.items()
    ]
    save([[*rows[i], *rows[i + 1]] for i in (0, 2, 4)], REPOSITORY / "docs" / "directions.jpg")


def make_help(generator: Generator) -> None:
    for name in DIRECTIONS:
        file = REPOSITORY / "web" / "docs" / "directions" / f"{name.replace(' ', '_')}.jpg"
        save([[strip(generator, name)]], file)


def make_templates(generator: Generator) -> None:
    woman, other = sampled(generator)
    folder = REPOSITORY / "workflows"
    before = faces(generator, path(woman, 4))
    save([before[:2], smiling(generator, path(woman, 4))[:2]], folder / "edit_face_video.jpg")
    slow = faces(generator, path(other, 4))
    save([slow[:2], slow[2:]], folder / "slow_motion.jpg")
    warm = [(0.75 * tile + 0.25 * np.array([210, 110, 60])).astype(np.uint8) for tile in before[1:3]]
    save([before[1:3], warm], folder / "edit_first_frame_image.jpg")
    bare, worn = painted(generator, path(woman, 7)[2:5])
    save([[bare[0], bare[2]], [worn[0], worn[2]]], folder / "paint_on_first_frame.jpg")
    save([faces(generator, [woman, other]), smiling(generator, [woman, other])], folder / "two_people.jpg")
    (code,) = sample_codes(generator, STRIP_SEEDS[:1], truncation_psi=0.7)
    found = sefa(generator, max(FOUND) + 1, "middle (shape)")
    ways = [[code + strength * rows_of(found[i], len(code)) for strength in (-3.0, 0.0, 3.0)] for i in FOUND]
    grid = Image.fromarray(np.vstack([np.hstack(faces(generator, codes)) for codes in ways]))
    grid.resize((2 * TILE_PX, 2 * TILE_PX)).save(folder / "find_a_direction.jpg", quality=88)


def smiling(generator: Generator, codes: list[torch.Tensor]) -> list[np.ndarray]:
    """Pictures of the codes after one edit."""
    return faces(generator, [moved(code, "smile", 3.0) for code in codes])


MAKERS = {"readme": make_readme, "help": make_help, "templates": make_templates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="*", help=f"{', '.join(MAKERS)}; all if left out")
    chosen = parser.parse_args().which or list(MAKERS)
    generator = load_generator()
    for name in chosen:
        MAKERS[name](generator)


if __name__ == "__main__":
    main()
