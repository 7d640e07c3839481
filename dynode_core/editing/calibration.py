"""Strength in units of what is seen: 1 changes the picture as much for every direction (ours).

The change is measured with the perceptual distance between generated faces before and after, to either side, at a low
resolution near the code (`generators.proxy`): at a high one, turning a head by three degrees, which hardly anybody
sees, would count more than a smile. The change is close to proportional to the strength at first and then saturates,
so a few secant steps find the strength whose change is the wanted one.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..generators.protocol import Generator
from ..generators.proxy import local_proxies
from ..inversion.perceptual import PerceptualDistance
from ..memory import reuse_large_blocks
from ..types import EditDirection
from .latent import applied_rows
from .networks import NetworkEdit

VISIBLE_CHANGE = 0.025
"""Distance that counts as 1: about that of the shipped smile at strength 2."""
SIZE = 64
"""Side of the pictures."""
_FACES = 2
_PSI = 0.6
_ROUNDS = 5
_POWER = 1.5
"""Of the strength, with which small changes grow, until two are measured."""
_LEAP = 8.0
_CLOSE = 0.05
"""Relative error of the distance that is good enough."""
_UNSEEN = 1e-6
_KEPT = 4096
_known: dict[tuple[str, str], float] = {}


def visible_unit(
    edit: EditDirection | NetworkEdit,
    generator: Generator,
    perceptual: PerceptualDistance,
    *,
    layers: str = "all",
    progress: Callable[[], None] = lambda: None,
) -> float:
    """The strength at which `edit` changes pictures by `VISIBLE_CHANGE` on average. Measured once, then remembered.

    Args:
        edit: what is measured, on the rows `layers` of its own.
        progress: called before each measurement; may raise to cancel.
    Returns:
        Positive: multiply a strength in visible units by it.
    Raises:
        ValueError: the edit does not fit the generator, or changes nothing that can be seen.
    """
    codes = _faces(generator)
    rows = torch.stack([applied_rows(edit, code, generator.family, layers) for code in codes])
    key = (generator.generator_id, _digest(rows))
    if key not in _known:
        found = _search(edit.name, rows, codes, generator, perceptual, progress)
        if len(_known) >= _KEPT:
            _known.clear()
        _known[key] = found
    return _known[key]


class ChangeMeter:
    """Measures how much pictures of a few codes change. Codes `(n, L, D)`; one stand-in and its picture for each."""

    def __init__(self, generator: Generator, perceptual: PerceptualDistance, codes: Tensor, size: int) -> None:
        self._perceptual, self._codes = perceptual, codes.to(generator.device)
        drawing = cast(Generator, weakref.proxy(generator))  # a meter that is remembered keeps no generator in memory
        self._draw = [local_proxies(drawing, code[None], [size])[size] for code in self._codes]
        self._base = [
            perceptual.features(draw(code[None]).clamp(-1, 1), exact=False)
            for draw, code in zip(self._draw, self._codes, strict=True)
        ]

    @property
    def device(self) -> torch.device:
        """Where the generator was."""
        return self._codes.device

    def change(self, rows: Tensor, strength: float) -> float:
        """Mean perceptual distance to the codes plus and minus `strength` times `(n, L, D)` `rows`."""
        total = 0.0
        for code, row, draw, base in zip(self._codes, rows.to(self._codes), self._draw, self._base, strict=True):
            both = torch.stack([code + strength * row, code - strength * row])
            features = self._perceptual.features(draw(both).clamp(-1, 1), exact=False)
            first = [part.expand(2, -1, -1, -1) for part in base]
            total += float(self._perceptual.between_features(first, features).mean())
        return total / len(rows)


@torch.no_grad()
def _search(
    name: str,
    rows: Tensor,
    codes: Tensor,
    generator: Generator,
    perceptual: PerceptualDistance,
    progress: Callable[[], None],
) -> float:
    length = float(rows.flatten(1).norm(dim=1).mean())
    if length == 0:
        raise ValueError(f"The direction {name!r} is zero on the chosen layers, so it changes nothing.")
    with reuse_large_blocks():
        meter = _meter(generator, perceptual, codes)
        strength, power = 3.0 * math.sqrt(len(codes[0])) / length, _POWER
        tried: list[tuple[float, float]] = []
        for _ in range(_ROUNDS):
            progress()
            change = meter.change(rows, strength)
            if change < _UNSEEN:
                raise ValueError(f"The direction {name!r} changes nothing that can be seen on the chosen layers.")
            ratio = VISIBLE_CHANGE / change
            if tried and abs(math.log(strength / tried[-1][0])) > 1e-3:
                slope = math.log(change / tried[-1][1]) / math.log(strength / tried[-1][0])
                power = min(2.5, max(0.3, slope))
            tried.append((strength, change))
            strength *= min(_LEAP, max(1 / _LEAP, ratio ** (1 / power)))
            if abs(ratio - 1) < _CLOSE:
                break
    return strength


_meters: weakref.WeakKeyDictionary[Generator, ChangeMeter] = weakref.WeakKeyDictionary()


def _meter(generator: Generator, perceptual: PerceptualDistance, codes: Tensor) -> ChangeMeter:
    """The meter of the generator that was asked for last: its stand-ins are what takes longest."""
    known = _meters.get(generator)
    if known is None or known.device != generator.device:
        _meters.clear()
        known = _meters[generator] = ChangeMeter(generator, perceptual, codes, min(SIZE, generator.resolution))
    return known


@torch.no_grad()
def _faces(generator: Generator) -> Tensor:
    """`(n, L, D)` seeded codes, CPU."""
    z = torch.randn(_FACES, generator.z_dim, generator=torch.Generator().manual_seed(3)).to(generator.device)
    return generator.map(z, truncation_psi=_PSI).float().cpu()


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
