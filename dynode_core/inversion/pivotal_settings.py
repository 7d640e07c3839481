"""How pivotal tuning works."""

from __future__ import annotations

from dataclasses import dataclass

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
        for name, low, high in (
            ("keyframes", 1, 512),
            ("rounds", 1, 1000),
            ("rate", 0.0, 1.0),
            ("pixel_weight", 0.0, 1000.0),
            ("perceptual_weight", 0.0, 1000.0),
            ("identity_weight", 0.0, 1000.0),
            ("locality_weight", 0.0, 1000.0),
            ("target", 0.0, 100.0),
            ("depth", 4, 4096),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name} should lie between {low:g} and {high:g}, but is {value:g}.")
