"""How pivotal tuning works."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import check_range
from ..generators.tuning import TUNED_SIZE


@dataclass(frozen=True)
class PivotalSettings:
    """How `tune_to_pivots` works."""

    keyframes: int = 16
    """At most so many of the codes are pivots, evenly spread; with `per_shot` at least one of each shot."""
    rounds: int = 15
    """Visits to each of them, at most."""
    rate: float = 0.004
    """Adam's learning rate, in standard deviations of each weight tensor."""
    pixel_weight: float = 1.0
    """Of the mean squared difference."""
    perceptual_weight: float = 1.0
    identity_weight: float = 0.1
    locality_weight: float = 0.5
    """Of keeping other faces what they were; 0 leaves it out."""
    target: float = 0.01
    """Mean perceptual distance at which tuning ends early."""
    depth: int = TUNED_SIZE
    """Weights that act on feature maps of at most so many pixels are tuned."""
    per_shot: bool = False
    """Whether each shot gets a set of weights of its own, which its pivots alone decide."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("keyframes", self.keyframes, 1, 512)
        check_range("rounds", self.rounds, 1, 1000)
        check_range("rate", self.rate, 0.0, 1.0)
        check_range("pixel_weight", self.pixel_weight, 0.0, 1000.0)
        check_range("perceptual_weight", self.perceptual_weight, 0.0, 1000.0)
        check_range("identity_weight", self.identity_weight, 0.0, 1000.0)
        check_range("locality_weight", self.locality_weight, 0.0, 1000.0)
        check_range("target", self.target, 0.0, 100.0)
        check_range("depth", self.depth, 4, 4096)
