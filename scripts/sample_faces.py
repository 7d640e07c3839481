"""Sample generated faces and measure them: the data behind the shipped encoder and directions.

    python scripts/sample_faces.py --count 900 --out .cache/face_samples.safetensors

Writes w codes, 64 px pictures, mediapipe blendshapes and head poses; goes on where an earlier run stopped.
About 0.6 s per face on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.faces.landmarks import NUM_BLENDSHAPES, FaceLandmarker
from dynode_core.generators.protocol import Generator
from dynode_core.layout import network_to_bytes
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_landmarker

SEED = 2026
MAX_COUNT = 2400
SAVE_EVERY = 50
Samples = dict[str, torch.Tensor]


def sample_codes(generator: Generator) -> torch.Tensor:
    """`(MAX_COUNT, D)` w codes, each with a truncation psi drawn from [0.5, 1]."""
    random = torch.Generator().manual_seed(SEED)
    z = torch.randn(MAX_COUNT, generator.z_dim, generator=random)
    psi = 0.5 + 0.5 * torch.rand(MAX_COUNT, generator=random)
    return torch.stack([generator.map(z[i : i + 1], truncation_psi=float(psi[i]))[0, 0] for i in range(MAX_COUNT)])


def measure(generator: Generator, landmarker: FaceLandmarker, w: torch.Tensor) -> Samples:
    """One row of the data: picture, blendshapes, pose, detected."""
    image = generator.synthesize(w[None, None].expand(1, generator.num_ws, -1))
    faces = landmarker.detect(network_to_bytes(F.avg_pool2d(image, 2))[0])
    row = {
        "w": w,
        "pictures": torch.from_numpy(network_to_bytes(F.avg_pool2d(image, image.shape[-1] // 64)))[0],
        "blendshapes": torch.zeros(NUM_BLENDSHAPES),
        "pose_deg": torch.zeros(3),
        "detected": torch.tensor(bool(faces)),
    }
    if faces and faces[0].blendshapes is not None and faces[0].pose_deg is not None:
        row["blendshapes"] = torch.from_numpy(np.asarray(faces[0].blendshapes))
        row["pose_deg"] = torch.from_numpy(np.asarray(faces[0].pose_deg))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=900)
    parser.add_argument("--out", type=Path, default=Path(".cache/face_samples.safetensors"))
    args = parser.parse_args()
    generator = load_generator()
    codes = sample_codes(generator)
    rows: list[Samples] = []
    if args.out.is_file():
        table = load_tensors(args.out)
        rows = [{name: tensor[i] for name, tensor in table.items()} for i in range(len(table["w"]))]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), reuse_large_blocks(), FaceLandmarker(find_landmarker()) as landmarker:
        for i in range(len(rows), min(args.count, MAX_COUNT)):
            rows.append(measure(generator, landmarker, codes[i]))
            if len(rows) % SAVE_EVERY == 0 or len(rows) == args.count:
                save_file({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, args.out)
                print(f"{len(rows)} faces", flush=True)


if __name__ == "__main__":
    main()
