"""The course of a learning rate."""

from __future__ import annotations

import math


def warm_up_and_cosine(step: int, steps: int, warm_up_steps: int) -> float:
    """Factor of a learning rate at `step` of `steps`: linear warm-up, then half a cosine down to 5 %."""
    warm_up = min(1.0, (step + 1) / warm_up_steps)
    return warm_up * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
