"""Finished keyframes on disk, so that an interrupted inversion goes on where it stopped."""

from __future__ import annotations

import torch

from ..tensor_cache import TensorCache
from .optimise import OptimisedCode


class KeyframeCache:
    """Codes of keyframes in a `TensorCache`."""

    def __init__(self, entries: TensorCache) -> None:
        self._entries = entries

    def get(self, key: str) -> OptimisedCode | None:
        """The code stored under `key`, or None."""
        tensors = self._entries.get(key)
        if tensors is None or not tensors.keys() >= {"w_plus", "loss", "steps"}:
            return None
        return OptimisedCode(tensors["w_plus"], float(tensors["loss"]), int(tensors["steps"]))

    def put(self, key: str, code: OptimisedCode) -> None:
        """Store a code."""
        loss, steps = torch.tensor(code.loss), torch.tensor(code.steps)
        self._entries.put(key, {"w_plus": code.w_plus, "loss": loss, "steps": steps})
