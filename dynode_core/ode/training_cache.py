"""States of interrupted training on disk, so that it goes on where it stopped and ends as if it had not stopped."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..tensor_cache import TensorCache, content_key
from ..tuning_files import pack_tuning
from ..types import InvertedClip

_INTERVAL_S = 10.0
_FREE = ("steps", "patience", "device")
"""Settings that may change when training goes on."""


@dataclasses.dataclass
class Course:
    """How far a training run has come."""

    step: int
    losses: list[float]
    """One per look, the first before training."""
    best: dict[str, Tensor]
    """Weights with the lowest loss."""
    best_step: int = 0
    stale: int = 0
    """Looks since the loss last fell."""


def training_key(inverted: InvertedClip, settings: object, picture_loss: str) -> str:
    """Hash of all that a run depends on but its length; `picture_loss` names what that loss compares with."""
    facts = {k: v for k, v in vars(settings).items() if k not in _FREE}
    cuts = np.empty(0) if inverted.cuts_s is None else inverted.cuts_s
    settings_text = json.dumps(facts, sort_keys=True)
    tuned = pack_tuning(inverted.tuning) if picture_loss else {}
    parts: list[Tensor | np.ndarray | str] = ["training 2", inverted.w_plus, inverted.times, cuts]
    return content_key([*parts, settings_text, picture_loss, *tuned, *tuned.values()])


class TrainingCache:
    """The last state of one run, at most every ten seconds; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._entries, self._key = TensorCache(folder), key
        self._last = time.monotonic()

    def restore(self, network: nn.Module, optimiser: torch.optim.Adam, rng: np.random.Generator) -> Course | None:
        """Put a stored state into the parts of a run; None, and nothing changed, if there is none that fits."""
        tensors = self._entries.get(self._key)
        if tensors is None:
            return None
        try:
            facts = json.loads(bytes(tensors["facts"].tolist()))
            weights = _under(tensors, "network.")
            course = Course(best=_under(tensors, "best."), **facts["course"])
            adam: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(tensors, "adam.").items():
                index, _, part = name.partition(".")
                adam.setdefault(int(index), {})[part] = value
            fits = {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in network.state_dict().items()}
            if not fits:
                return None
            rng.bit_generator.state = facts["rng"]
        except (KeyError, TypeError, ValueError):
            return None
        network.load_state_dict(weights)
        optimiser.load_state_dict({"state": adam, "param_groups": optimiser.state_dict()["param_groups"]})
        return course

    def store(
        self,
        course: Course,
        network: nn.Module,
        optimiser: torch.optim.Adam,
        rng: np.random.Generator,
        *,
        at_once: bool = False,
    ) -> None:
        """Keep a state, unless one was kept a moment ago and `at_once` is False."""
        if not at_once and time.monotonic() - self._last < _INTERVAL_S:
            return
        numbers = {"step": course.step, "losses": course.losses, "best_step": course.best_step, "stale": course.stale}
        facts = json.dumps({"course": numbers, "rng": rng.bit_generator.state})
        tensors = {"facts": torch.tensor(list(facts.encode()), dtype=torch.uint8)}
        tensors |= {f"network.{name}": value for name, value in network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in course.best.items()}
        for index, parts in optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in parts.items()}
        self._entries.put(self._key, {name: value.clone() for name, value in tensors.items()})
        self._last = time.monotonic()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
