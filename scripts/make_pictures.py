"""Make the pictures of the README and of the workflow templates, from faces of people who do not exist.

python scripts/make_pictures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from dynode_core.checkpoints.load import load_generator
from dynode_core.editing import shipped_directions
from dynode_core.generators.protocol import Generator
from dynode_core.layout import network_to_bytes
from dynode_core.rendering import render
from dynode_core.rows import rows_of

SEED = 11
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


def main() -> None:
    generator = load_generator()
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(SEED))
    woman, other = generator.map(z, truncation_psi=0.7)[1:]
    clip = path(woman, 4)
    before = faces(generator, clip)
    smiling = faces(generator, [moved(code, "smile", 3.0) for code in clip])
    save([before, smiling], REPOSITORY / "docs" / "edit.jpg")
    save([before[:2], smiling[:2]], REPOSITORY / "workflows" / "edit_face_video.jpg")
    save(
        [faces(generator, path(other, 4))[:2], faces(generator, path(other, 4))[2:]],
        REPOSITORY / "workflows" / "slow_motion.jpg",
    )
    warm = [(0.75 * tile + 0.25 * np.array([210, 110, 60])).astype(np.uint8) for tile in before[1:3]]
    save([before[1:3], warm], REPOSITORY / "workflows" / "edit_first_frame_image.jpg")
    rows = [
        faces(generator, [moved(woman, name, -strength), woman, moved(woman, name, strength)])
        for name, strength in DIRECTIONS.items()
    ]
    save([[*rows[i], *rows[i + 1]] for i in (0, 2, 4)], REPOSITORY / "docs" / "directions.jpg")


if __name__ == "__main__":
    main()
