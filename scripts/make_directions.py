"""Find the shipped edit directions from sampled faces and measure what each one does.

    python scripts/make_directions.py --samples .cache/face_samples.safetensors

Method (ours): expressions are read from w by ridge regression, all attributes at once, and each direction is the
smallest change of w that raises one attribute and leaves the others where they are. It acts only on the rows whose
layers draw expressions, which keeps the identity. Head poses, which move everything, use what changes in w on average
when the pose changes. The effect on fresh faces and the leakage into the other attributes are measured and written
beside the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.editing.directions import SHIPPED_FILE, shipped_directions
from dynode_core.editing.latent import W_FAMILY, direction_rows
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.generators.protocol import Generator
from dynode_core.layout import network_to_bytes
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_landmarker
from dynode_core.rows import depth_mask
from dynode_core.types import EditDirection

BLENDSHAPES = {
    "smile": (44, 45),
    "mouth open": (25,),
    "eyes closed": (9, 10),
    "brows up": (3, 4, 5),
}
"""Attribute -> indices into mediapipe's 52 blendshapes, averaged."""
MORE_BLENDSHAPES = {
    "squint": ((19, 20), ()),
    "brows down": ((1, 2), ()),
    "pucker": ((38,), ()),
    "look right": ((14, 15), (13, 16)),
    "look up": ((17, 18), (11, 12)),
}
"""Attribute -> blendshapes that are averaged, less others. Right is the right edge of the picture."""
LIGHT = ("bright face", "warm face", "light from the right", "bright background")
POSE = {"yaw": 0, "pitch": 1, "roll": 2}
REJECTED = ("squint", "brows down", "pucker", "look right", "look up", *LIGHT)
"""Not shipped. Measured on 4 or 5 fresh faces, in standard deviations of the attribute per unit of strength, own effect
and largest leak: squint .31 and .18, brows down .25 and .48, pucker .05 and .13, look right .25 and .11, look up .18
and .16, light from the right .17 and .05, bright background .23 and .06, bright face .52 and .13, warm face .78 and
.08. The last two do what they measure, but by another colour of the skin and of the whole picture, not by light."""
MAX_SPREAD = 3.0
"""Attributes are clipped to so many standard deviations: a blink must not dominate."""
EXPRESSION_DEPTH = (0.17, 0.44)
LIGHT_DEPTH = (0.44, 1.0)
POSE_DEPTH = (0.0, 0.44)
EXPRESSION_NORM = 1.2
"""Length of an expression's direction per row: at strength 3 the change is plain to see."""
READ_RIDGE = 0.45
"""In units of the mean variance of w."""
TEST_FACES = 12
TEST_STRENGTH = 2.0


def attributes(blendshapes: Tensor, pose_deg: Tensor) -> dict[str, Tensor]:
    """The named attributes, `(N,)` each, from blendshapes `(N, 52)` and poses `(N, 3)`."""
    found = {name: blendshapes[:, list(indices)].mean(1) for name, indices in BLENDSHAPES.items()}
    return found | {name: pose_deg[:, column] for name, column in POSE.items()}


def more_attributes(blendshapes: Tensor, pictures: Tensor) -> dict[str, Tensor]:
    """Further attributes, `(N,)` each, from blendshapes `(N, 52)` and `(N, 64, 64, 3)` uint8 pictures."""
    found = {}
    for name, (plus, minus) in MORE_BLENDSHAPES.items():
        found[name] = blendshapes[:, list(plus)].mean(1)
        if minus:
            found[name] = found[name] - blendshapes[:, list(minus)].mean(1)
    images = pictures.double() / 255
    face = images[:, 20:48, 20:44]
    sides = face[:, :, 12:].mean((1, 2, 3)) - face[:, :, :12].mean((1, 2, 3))
    background = torch.cat([images[:, :, :6], images[:, :, -6:]], dim=2).mean((1, 2, 3))
    warmth = face[..., 0].mean((1, 2)) - face[..., 2].mean((1, 2))
    return found | dict(zip(LIGHT, (face.mean((1, 2, 3)), warmth, sides, background), strict=True))


def nuisances(pictures: Tensor) -> Tensor:
    """`(N, 6)` mean colour of face and background, so that light does not ride along with an expression."""
    images = pictures.double() / 255
    face = images[:, 20:48, 20:44].mean((1, 2))
    background = torch.cat([images[:, :, :6], images[:, :, -6:]], dim=2).mean((1, 2))
    return torch.cat([face, background], dim=1)


def standardise(values: Tensor) -> Tensor:
    """Zero mean, unit deviation, clipped."""
    return ((values - values.mean(0)) / values.std(0)).clamp(-MAX_SPREAD, MAX_SPREAD)


def fit(samples: dict[str, Tensor]) -> dict[str, Tensor]:
    """One `(D,)` direction per attribute: the first ones among themselves, further ones with all others held."""
    seen = samples["detected"].bool()
    blendshapes, pictures = samples["blendshapes"][seen].double(), samples["pictures"][seen]
    w = samples["w"][seen].double()
    first = attributes(blendshapes, samples["pose_deg"][seen].double())
    directions = _fit_together(w, first, standardise(nuisances(pictures)))
    both = first | more_attributes(blendshapes, pictures)
    return directions | {name: row for name, row in _fit_together(w, both).items() if name not in directions}


def _fit_together(w: Tensor, named: dict[str, Tensor], light: Tensor | None = None) -> dict[str, Tensor]:
    values = standardise(torch.stack(list(named.values()), 1))
    w = w - w.mean(0)
    covariance = w.T @ w / len(w)
    ridge = READ_RIDGE * covariance.diagonal().mean() * torch.eye(w.shape[1], dtype=torch.double)
    read_out = torch.linalg.solve(covariance + ridge, w.T @ values / len(w))
    raising_one = read_out @ torch.linalg.inv(read_out.T @ read_out)
    design = values if light is None else torch.cat([values, light], dim=1)
    average_change = torch.linalg.lstsq(design, w).solution
    directions = {}
    for i, name in enumerate(named):
        if name in POSE or name in LIGHT:
            directions[name] = average_change[i].float()
        else:
            directions[name] = (EXPRESSION_NORM * raising_one[:, i] / raising_one[:, i].norm()).float()
    return directions


def depth_of(name: str) -> tuple[float, float]:
    """Which layers draw it, as fractions of the depth."""
    return POSE_DEPTH if name in POSE else LIGHT_DEPTH if name in LIGHT else EXPRESSION_DEPTH


@torch.no_grad()
def measure_effects(generator: Generator, directions: dict[str, EditDirection]) -> dict[str, dict[str, float]]:
    """Mean change of every attribute per unit of strength on fresh faces, in raw units (blendshape, degrees)."""
    random = torch.Generator().manual_seed(7)
    w = generator.map(torch.randn(TEST_FACES, generator.z_dim, generator=random), truncation_psi=0.7)
    effects: dict[str, dict[str, float]] = {}
    with reuse_large_blocks(), FaceLandmarker(find_landmarker()) as landmarker:

        def measured(code: Tensor) -> dict[str, float] | None:
            image = generator.synthesize(code[None], size=512)
            faces = landmarker.detect(network_to_bytes(image)[0])
            if not faces or faces[0].blendshapes is None or faces[0].pose_deg is None:
                return None
            shapes = torch.from_numpy(faces[0].blendshapes[None])
            raw = attributes(shapes, torch.from_numpy(faces[0].pose_deg[None]))
            raw |= more_attributes(shapes, torch.from_numpy(network_to_bytes(F.avg_pool2d(image, 8))))
            return {name: float(value[0]) for name, value in raw.items()}

        for name, direction in directions.items():
            rows = direction_rows(direction, w.shape[1:], W_FAMILY) * depth_mask(direction.depth, w.shape[1])[:, None]
            pairs = [(measured(code - TEST_STRENGTH * rows), measured(code + TEST_STRENGTH * rows)) for code in w]
            both = [(low, high) for low, high in pairs if low and high]
            effects[name] = {
                other: round(float(np.mean([high[other] - low[other] for low, high in both])) / (2 * TEST_STRENGTH), 4)
                for other in both[0][0]
            }
            print(name, effects[name], flush=True)
    return effects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=Path(".cache/face_samples.safetensors"))
    parser.add_argument("--no-effects", action="store_true", help="skip the measurement on fresh faces")
    args = parser.parse_args()
    samples = load_tensors(args.samples)
    directions = fit(samples)
    directions = {name: row for name, row in directions.items() if name not in REJECTED}
    depths = {name: {"depth": depth_of(name)} for name in directions}
    SHIPPED_FILE.parent.mkdir(exist_ok=True)
    metadata = {"faces": str(len(samples["w"])), "directions": json.dumps(depths)}
    save_file({name: direction.contiguous() for name, direction in directions.items()}, SHIPPED_FILE, metadata)
    print(f"{len(directions)} directions from {len(samples['w'])} faces -> {SHIPPED_FILE.name}")
    if not args.no_effects:
        effects = measure_effects(load_generator(), shipped_directions())
        report = {"faces": len(samples["w"]), "per_unit_of_strength": effects}
        SHIPPED_FILE.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
