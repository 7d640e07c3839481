"""Where fields are fitted and solved."""

from __future__ import annotations

import torch


def solving_device(device: torch.device | str) -> torch.device:
    """`device` if it computes in float64, else the CPU: fits need it, and so do times along a clip.

    Apple's MPS and some others do not. States have a few dozen entries, so a CPU solves them about as fast.
    """
    wanted = torch.device(device)
    try:
        torch.ones(1, dtype=torch.float64, device=wanted).mul_(0.5)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return wanted
