"""A clip whose frames another person's weights made, for the tests of stitching tuning."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from tiny_generators import other_person

from dynode_pack.dynode_core.clip import TensorClip
from dynode_pack.dynode_core.rendering import render
from dynode_pack.dynode_core.types import AlignedClip, FaceTrack, TrajectorySample


def stitching_scene(generator: Any, count: int = 4, *, edit: float = 0.0) -> tuple[AlignedClip, TrajectorySample]:
    """Frames that another person's weights made of the codes, and the codes."""
    random, side = torch.Generator().manual_seed(1), 64
    ends = generator.map(torch.randn(2, generator.z_dim, generator=random))
    codes = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 0.3, count)[:, None, None])
    pictures = render(generator, codes, tuning=other_person(generator), size=side).permute(0, 2, 3, 1)
    clip = TensorClip(((pictures + 1) / 2).clamp(0, 1).contiguous(), 25)
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.8 * np.cos(angles), np.sin(angles)], axis=1)
    brows = np.stack([np.linspace(-0.6, 0.6, 10), np.full(10, -0.25)], axis=1)
    points = np.concatenate([jaw, brows, np.tile([[0.0, 0.2]], (41, 1))]) * side * 0.25 + side / 2
    track = FaceTrack(
        landmarks=np.tile(points, (count, 1, 1)),
        boxes=np.tile([[0.0, 0, side, side]], (count, 1)),
        scores=np.ones(count, np.float32),
        detected=np.ones(count, bool),
    )
    quad = np.array([(0, 0), (0, side), (side, side), (side, 0)], float)
    shift = edit * torch.randn(generator.w_dim, generator=random)
    sample = TrajectorySample(
        w_plus=codes + shift,
        base_w_plus=codes,
        times=clip.frame_times,
        fps=Fraction(25),
        family=generator.family,
        generator_id=generator.generator_id,
    )
    return AlignedClip(clip, np.tile(quad, (count, 1, 1)), track, crop_size=side), sample
