"""The paper's gradient fit: our solver against the same training in plain torchdiffeq."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from trajectory_clips import FPS, clip_of, released_clip, synthetic_codes, timed

from dynode_core.ode import GradientSettings, train_trajectory
from dynode_core.ode.external import TORCHDIFFEQ_DOPRI5

PAPER_STEPS = 5000


def paper_fit(steps: int, repeats: int, device: str) -> dict[str, Any]:
    """Milliseconds per gradient step with either solver, and seconds for the 5000 steps of the paper at that pace.

    Starting up and looking at the loss is taken off by timing a run of one step as well.
    """
    clip = released_clip()
    if clip is None:
        clip = clip_of(synthetic_codes(11)[1], np.arange(11) / FPS)
    found: dict[str, Any] = {"steps_timed": steps, "keyframes": len(clip.times)}
    for name, solver in (("ours", "dopri5"), ("torchdiffeq", TORCHDIFFEQ_DOPRI5)):
        base = GradientSettings(solver=solver, device=device, evaluate_every=PAPER_STEPS)
        costs = []
        for count in (1, 1 + steps):
            settings = dataclasses.replace(base, steps=count)
            _, cost = timed(lambda s=settings: train_trajectory(clip, s), repeats)
            costs.append(cost)
        each = {clock: (costs[1][clock] - costs[0][clock]) / steps for clock in ("wall_ms", "cpu_ms")}
        found[name] = {**each, "paper_s": round(each["wall_ms"] * PAPER_STEPS / 1000, 1)}
    found["times_faster"] = {
        clock: round(found["torchdiffeq"][clock] / found["ours"][clock], 2) for clock in ("wall_ms", "cpu_ms")
    }
    return found
