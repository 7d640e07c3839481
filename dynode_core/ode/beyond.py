"""Going on beyond the ends of the clip, only on request: the motion there dies away.

Past the last keyframe the equation is dy/dt = v exp(-(t - t_end) / d), with v the velocity of the path at the end; its
solution y_end + v d (1 - exp(-(t - t_end) / d)) never leaves the end by more than v d. The same backward. (Ours.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..types import LatentTrajectory
from .vector_field import PathField


def damped_travel(trajectory: LatentTrajectory, times: np.ndarray, damping_s: float) -> Tensor:
    """`(N,)` float64: how far, in units of tau, the motion at the ends still carries at each time; 0 within."""
    first, last = float(trajectory.times[0]), float(trajectory.times[-1])
    past = np.maximum(times - last, 0.0) - np.maximum(first - times, 0.0)
    return torch.from_numpy(np.sign(past) * damping_s * -np.expm1(-np.abs(past) / damping_s) / (last - first))


def end_velocities(field: PathField, at_ends: Tensor) -> Tensor:
    """`(B, 2, r)` states at tau 0 and 1 to dy/dtau there."""
    edges = field.edges.double()
    last = len(edges) - 2
    windows = torch.tensor([0, last], device=edges.device)
    width = (edges[windows + 1] - edges[windows]) / 2
    states = at_ends.to(field.starts).transpose(0, 1)
    x = torch.tensor([[-1.0], [1.0]]).to(states).expand(-1, states.shape[1])
    slopes = field.in_windows(windows, x.contiguous(), states.contiguous())
    return (slopes / width.to(slopes)[:, None, None]).transpose(0, 1).cpu()


def carry_on(states: Tensor, travel: Tensor, velocities: Tensor) -> Tensor:
    """`(B, N, r)` states at times held within the clip, moved on by the `(N,)` travel."""
    v = velocities[:, (travel > 0).long()].to(states)
    return states + travel.to(states)[None, :, None] * v
