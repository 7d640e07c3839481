"""Time reading, blending and writing; measure seams and flicker on real clips; measure memory against length.

    python benchmarks/blend.py speed --out benchmarks/results/blend-speed-<machine>.json
    python benchmarks/blend.py quality CLIP [CLIP ...] --out benchmarks/results/blend-quality.json
    python benchmarks/blend.py memory --seconds 10 600 --out benchmarks/results/blend-memory.json

No generator is needed: the "rendered" face is the crop itself, softened, darkened and lit from one side, and the
"edited" one has a dark spot on the mouth more, each pixel of which the optical flow of the clip carries along.
`quality` finds faces with mediapipe (`requirements-models.txt` has its file).
Each entry of `speed` is the least of --repeats; processor time stands beside wall time, which a busy machine spoils.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.blending import BlendSettings, blend_clip  # noqa: E402
from dynode_core.blending.flow import FlowPair, _sample, estimate_flow, frame_between  # noqa: E402
from dynode_core.blending.region import RegionFinder  # noqa: E402
from dynode_core.faces.crop import crop, crop_clip, quad_to_crop_matrices  # noqa: E402
from dynode_core.faces.quads import quad_sides_px  # noqa: E402
from dynode_core.types import AlignedClip, FaceTrack  # noqa: E402
from dynode_core.video import FileClip, TensorClip, VideoWriter  # noqa: E402
from machine import machine  # noqa: E402

VARIANTS: dict[str, BlendSettings] = {
    "adaptive": BlendSettings(),
    "adaptive, detail not matched": BlendSettings(detail_match=False),
    "adaptive, multiband, occluders kept": BlendSettings(join="multiband", feather=0.2, keep_occluders=True),
    "residual": BlendSettings(mode="residual"),
    "replace, plain feather": BlendSettings(mode="replace", colour_match=False, detail_match=False),
    "replace, colour match": BlendSettings(mode="replace"),
    "replace, multiband": BlendSettings(mode="replace", colour_match=False, join="multiband", feather=0.3),
    "replace, poisson": BlendSettings(mode="replace", colour_match=False, join="poisson"),
    "replace, colour match, grain": BlendSettings(mode="replace", grain=True),
}


class StandInFaces:
    """Altered crops of a clip in place of a generator's pictures."""

    def __init__(self, aligned: AlignedClip, times: np.ndarray, size: int, spots: Tensor | None = None) -> None:
        """`spots`: `(T, H, W)` in [0, 1], of each source frame how much of the edit is where; None: a round spot on the
        mouth."""
        self.aligned, self.times, self.size, self.fps = aligned, times, size, aligned.clip.fps
        self.num_frames = len(times)
        self._spots = spots

    def read(self, start: int, stop: int) -> Tensor:
        """With the edit: the spot stays on the mouth, as an edit of a face does."""
        frames = self._nearest(start, stop)
        if self._spots is not None:
            pictures = self._spots[torch.from_numpy(frames)][..., None].expand(-1, -1, -1, 3)
            spots = crop(pictures, self.aligned.quads[frames], self.size)[:, :1].clamp(0, 1)
        else:
            spots = round_spots(self._in_crop(frames), self.size, self.size)[:, None]
        return self.read_base(start, stop) - 0.35 * spots

    def read_base(self, start: int, stop: int) -> Tensor:
        """Without it."""
        crops = crop_clip(self.aligned, self._nearest(start, stop), self.size)
        soft = F.interpolate(crops, scale_factor=0.125, mode="bilinear", antialias=True, align_corners=False)
        soft = F.interpolate(soft, (self.size, self.size), mode="bicubic", align_corners=False)
        return soft * 0.85 - 0.12 + torch.linspace(-0.15, 0.15, self.size)

    def _nearest(self, start: int, stop: int) -> np.ndarray:
        return np.abs(self.aligned.clip.frame_times[None] - self.times[start:stop, None]).argmin(axis=1)

    def _in_crop(self, frames: np.ndarray) -> np.ndarray:
        """`(n, 2)` places of the spot where the crop is the unit square."""
        middle = np.concatenate([mouths(self.aligned.track)[frames], np.ones((len(frames), 1))], axis=1)
        mapped = np.einsum("nij,nj->ni", quad_to_crop_matrices(self.aligned.quads[frames], 1), middle)
        return mapped[:, :2] / mapped[:, 2:]


class GivenFaces:
    """Pictures that are there already, over and over: what blending costs without what makes the faces."""

    def __init__(self, faces: StandInFaces, times: np.ndarray) -> None:
        self.times, self.size, self.fps, self.num_frames = times, faces.size, faces.fps, len(times)
        self._edited, self._base = faces.read(0, faces.num_frames), faces.read_base(0, faces.num_frames)

    def read(self, start: int, stop: int) -> Tensor:
        """With the edit."""
        return self._edited[np.arange(start, stop) % len(self._edited)]

    def read_base(self, start: int, stop: int) -> Tensor:
        """Without it."""
        return self._base[np.arange(start, stop) % len(self._base)]


def main() -> None:
    """Measure one thing and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    commands = parser.add_subparsers(dest="what", required=True)
    speed = commands.add_parser("speed", help="frames per second of each part")
    speed.add_argument("--sizes", type=int, nargs="+", default=[720, 1080], help="heights of 16:9 frames")
    speed.add_argument("--repeats", type=int, default=3)
    quality = commands.add_parser("quality", help="seams and flicker on clips")
    quality.add_argument("clips", type=Path, nargs="+")
    quality.add_argument("--seconds", type=float, default=1.0, help="of each clip")
    memory = commands.add_parser("memory", help="peak memory of clips of different length")
    memory.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0])
    memory.add_argument("--height", type=int, default=1080)
    one = commands.add_parser("one-length", help="used by memory: one length in its own process")
    one.add_argument("file", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "one-length":
        print(json.dumps(blend_file(options.file)))
        return
    measure: dict[str, Callable[[], Any]] = {
        "speed": lambda: {f"{height}p": speed_at(height, options.repeats) for height in options.sizes},
        "quality": lambda: {path.name: quality_of(path, options.seconds) for path in options.clips},
        "memory": lambda: memory_of(options.seconds, options.height),
    }
    variants = {name: dataclasses.asdict(settings) for name, settings in VARIANTS.items()}
    report = {
        "machine": machine() | {"threads": options.threads, "variants": variants},
        options.what: measure[options.what](),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


def speed_at(height: int, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per frame of each part for 16:9 frames with a face of half their height."""
    aligned = moving_clip(height, 5)
    clip = aligned.clip
    frames = clip.read(range(5))
    flows = estimate_flow(frames[0], frames[1])
    results = {
        "flow of a pair": timed(lambda: estimate_flow(frames[0], frames[1]), 1, repeats),
        "frame between": timed(lambda: frame_between(frames[0], frames[1], flows, 0.4), 1, repeats),
    }
    faces = GivenFaces(StandInFaces(aligned, clip.frame_times, 512), clip.frame_times)
    for name, settings in VARIANTS.items():
        results[name] = timed(lambda chosen=settings: list(blend_clip(aligned, faces, chosen)), 5, repeats)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"

        def write() -> None:
            with VideoWriter(path, 25) as writer:
                for _ in range(4):
                    writer.write(frames)

        results["write"] = timed(write, 20, repeats)
        results["read"] = timed(lambda: list(FileClip(path).chunks(4)), 20, repeats)
    return results


def timed(work: Callable[[], object], num_frames: int, repeats: int) -> dict[str, float]:
    """Least wall and processor time in milliseconds per frame."""
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "wall_ms": round(min(walls) * 1000 / num_frames, 1),
        "processor_ms": round(min(processors) * 1000 / num_frames, 1),
    }


def quality_of(path: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Seam and warp error of every variant on the part of a clip, in 8-bit levels."""
    from dynode_core.faces.align import align_clip
    from dynode_core.faces.landmarks import FaceLandmarker
    from dynode_core.model_files import find_landmarker

    clip = FileClip(path, duration_s=seconds)
    with FaceLandmarker(find_landmarker()) as landmarker:
        aligned = align_clip(clip, landmarker)
    source = clip.read(range(clip.num_frames))
    flows = [estimate_flow(a, b) for a, b in zip(source, source[1:], strict=False)]
    spots = carried(first_spot(aligned), flows)
    faces = GivenFaces(StandInFaces(aligned, clip.frame_times, 512, spots), clip.frame_times)
    results = {}
    for name, settings in VARIANTS.items():
        made = torch.cat([frames for _, frames in blend_clip(aligned, faces, settings)])
        before = warp_error(source, flows, aligned, settings)
        after = warp_error(made, flows, aligned, settings)
        results[name] = {
            "warp_error": round(after, 3),
            "warp_error_of_source": round(before, 3),
            "times_that_of_source": round(after / before, 3),
            "seam": round(seam(made - source, aligned, settings), 3),
        }
    return results


def mouths(track: FaceTrack) -> np.ndarray:
    """`(T, 2)` middle of the mouth, pixels."""
    return track.landmarks[:, [13, 14] if track.landmarks.shape[1] > 68 else slice(48, 68)].mean(axis=1)


def round_spots(centres: np.ndarray, height: int, width: int, side: float | None = None) -> Tensor:
    """`(n, H, W)` soft spots around `(n, 2)` centres in units of `side` pixels (None: of the width)."""
    side = width if side is None else side
    x, y = ((torch.arange(length) + 0.5) / side for length in (width, height))
    places = torch.from_numpy(centres).float()
    across, down = x[None, None, :] - places[:, 0, None, None], y[None, :, None] - places[:, 1, None, None]
    return torch.exp(-(across**2 + down**2) / 0.005)


def first_spot(aligned: AlignedClip) -> Tensor:
    """`(H, W)`: the spot on the mouth of the first frame."""
    side = float(quad_sides_px(aligned.quads[:1])[0])
    centre = mouths(aligned.track)[:1] / side
    return round_spots(centre, aligned.clip.height, aligned.clip.width, side)[0]


def carried(spot: Tensor, flows: list[FlowPair]) -> Tensor:
    """`(T, H, W)`: where each pixel of the `(H, W)` spot of the first frame goes by the flow of the clip.

    So the edit itself is as steady as the clip, and what is found to flicker comes from blending. A spot that keeps its
    shape and follows a point, or one that follows the landmarks, slides over skin that twists or a hand that passes.
    """
    height, width = spot.shape
    x, y = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    spots = [spot]
    for flow in flows:
        back = torch.as_tensor(resize_flow(flow.backward, height, width))
        grid = torch.stack([(x + back[..., 0]) / width, (y + back[..., 1]) / height], dim=-1) * 2 - 1
        moved = F.grid_sample(spots[-1][None, None], grid[None].float(), mode="bicubic", align_corners=False)
        spots.append(moved[0, 0].clamp(0, 1))
    return torch.stack(spots)


def region_masks(aligned: AlignedClip, settings: BlendSettings) -> list[Tensor]:
    """`(H, W)` mask of every frame."""
    clip = aligned.clip
    finder = RegionFinder(aligned, settings, None, clip.num_frames)
    masks = []
    for i, time_s in enumerate(clip.frame_times):
        mask = torch.zeros(clip.height, clip.width)
        if (region := finder.at(i, float(time_s))) is not None:
            mask[region.slices()] = region.mask
        masks.append(mask)
    return masks


def warp_error(frames: Tensor, flows: list[FlowPair], aligned: AlignedClip, settings: BlendSettings) -> float:
    """Mean |x_t - x_t+1 at the place where the SOURCE's motion goes| where the motion is trusted and the mask lies."""
    errors = []
    for i, (flow, mask) in enumerate(zip(flows, region_masks(aligned, settings), strict=False)):
        forward = resize_flow(flow.forward, *mask.shape)
        moved = torch.from_numpy(_sample(frames[i + 1].numpy(), forward))
        trust = F.interpolate(torch.from_numpy(flow.trust_forward)[None, None], mask.shape, mode="bilinear")[0, 0]
        use = (mask > 0.01) & (trust > 0.3)
        errors.append(float((frames[i] - moved).abs().mean(dim=-1)[use].mean()))
    return float(np.mean(errors)) * 255


def resize_flow(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """`(h, w, 2)` motion in pixels, estimated on a smaller picture, for `(height, width)`."""
    large = F.interpolate(torch.from_numpy(flow).permute(2, 0, 1)[None], (height, width), mode="bilinear")[0]
    large = large * torch.tensor([width / flow.shape[1], height / flow.shape[0]])[:, None, None]
    return large.permute(1, 2, 0).contiguous().numpy()


def seam(change: Tensor, aligned: AlignedClip, settings: BlendSettings) -> float:
    """Mean slope of what was added, levels per pixel, in the outer half of the mask's ramp."""
    slopes = []
    for added, mask in zip(change, region_masks(aligned, settings), strict=True):
        ring = (mask > 0.02) & (mask < 0.98)
        blurred = F.avg_pool2d(added.permute(2, 0, 1)[None], 5, stride=1, padding=2)[0]
        slope = blurred.diff(dim=1)[:, :, :-1].abs() + blurred.diff(dim=2)[:, :-1].abs()
        slopes.append(float(slope.mean(dim=0)[ring[:-1, :-1]].mean()))
    return float(np.mean(slopes)) * 255


def memory_of(lengths_s: list[float], height: int) -> dict[str, Any]:
    """Peak resident memory of reading, blending and writing clips of several lengths, each in its own process."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        piece = Path(folder) / "piece.mp4"
        with VideoWriter(piece, 25, preset="ultrafast") as writer:
            for _, frames in moving_clip(height, 5).clip.chunks(5):
                writer.write(frames)
        for seconds in lengths_s:
            path = Path(folder) / f"{seconds:g}s.mp4"
            repeat_clip(piece, path, round(seconds * 5))
            done = subprocess.run(
                [sys.executable, __file__, "--threads", "1", "one-length", str(path)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results[f"{seconds:g} s"] = json.loads(done.stdout.splitlines()[-1])
    return results


def repeat_clip(source: Path, target: Path, times: int) -> None:
    """The packets of a video again and again, without encoding anything."""
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for turn in range(times):
            container.seek(0)
            for packet in container.demux(stream):
                if packet.dts is None:
                    continue
                packet.pts += turn * stream.duration
                packet.dts += turn * stream.duration
                packet.stream = copy
                out.mux(packet)


def blend_file(path: Path) -> dict[str, float]:
    """Read, blend (the face of the synthetic clip) and write one file; peak memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = FileClip(path)
    aligned, faces = repeated(moving_clip(clip.height, 5), clip)
    wall, processor = time.perf_counter(), time.process_time()
    with VideoWriter(path.with_name("out.mp4"), clip.fps, preset="ultrafast") as writer:
        for _, frames in blend_clip(aligned, faces, BlendSettings()):
            writer.write(frames)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1024 if platform.system() != "Darwin" else 1024**2
    return {
        "frames": clip.num_frames,
        "peak_mb": round(peak / scale),
        "peak_above_imports_mb": round((peak - before) / scale),
        "wall_s": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - processor, 1),
    }


def repeated(model: AlignedClip, clip: FileClip) -> tuple[AlignedClip, GivenFaces]:
    """The face of a short clip on a long one that shows it over and over, and what goes there."""
    which = np.arange(clip.num_frames) % model.clip.num_frames
    track = model.track
    track = FaceTrack(track.landmarks[which], track.boxes[which], track.scores[which], track.detected[which])
    faces = GivenFaces(StandInFaces(model, model.clip.frame_times, 512), clip.frame_times)
    return AlignedClip(clip, model.quads[which], track), faces


def moving_clip(height: int, num_frames: int) -> AlignedClip:
    """A textured 16:9 clip that moves by 3 px a frame, with a face (68 points) of half its height in the middle."""
    width = height * 16 // 9
    generator = torch.Generator().manual_seed(0)
    texture = F.interpolate(torch.rand(1, 3, height // 12, width // 12, generator=generator), (height, width + 64))
    frames = torch.stack([texture[0, :, :, 3 * i : 3 * i + width].permute(1, 2, 0) for i in range(num_frames)])
    radius, centre = height / 5, np.array([width / 2, height / 2])
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.8 * np.cos(angles), np.sin(angles)], axis=1)
    brows = np.stack([np.linspace(-0.6, 0.6, 10), np.full(10, -0.25)], axis=1)
    points = np.concatenate([jaw, brows, np.tile([[0.0, 0.2]], (41, 1))]) * radius
    shift = np.stack([-3.0 * np.arange(num_frames), np.zeros(num_frames)], axis=1)[:, None] + centre
    quad = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * radius * 1.9
    track = FaceTrack(
        landmarks=points[None] + shift,
        boxes=np.tile([[0.0, 0, 1, 1]], (num_frames, 1)),
        scores=np.ones(num_frames, np.float32),
        detected=np.ones(num_frames, bool),
    )
    return AlignedClip(TensorClip(frames.contiguous(), Fraction(25)), quad[None] + shift, track)


if __name__ == "__main__":
    main()
