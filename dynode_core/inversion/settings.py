"""How much work goes into an inversion."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .joint import JointStage
from .losses import LossWeights
from .optimise import Stage

SIZE = 256
"""Side of the pictures that the losses see at most."""


@dataclass(frozen=True)
class Quality:
    """Steps of the first keyframe alone, then of all of them together."""

    first: tuple[Stage, ...]
    joint: tuple[JointStage, ...]


FIRST_GUESS = "first guess"
"""The codes of the encoder as they are: each is shown once, to report its loss."""
QUALITIES: dict[str, Quality] = {
    FIRST_GUESS: Quality(first=(Stage(128, 0, 0.1),), joint=(JointStage(128, 1, 0.0),)),
    "draft": Quality(
        first=(Stage(64, 20, 0.2), Stage(128, 15, 0.15)),
        joint=(JointStage(64, 6, 0.12), JointStage(128, 3, 0.08)),
    ),
    "normal": Quality(
        first=(Stage(64, 25, 0.2), Stage(128, 30, 0.18)),
        joint=(
            JointStage(64, 8, 0.12),
            JointStage(128, 5, 0.08),
            JointStage(256, 3, 0.02, weight_rate=0.004, least_steps=60),
        ),
    ),
    "fine": Quality(
        first=(Stage(64, 25, 0.2), Stage(128, 50, 0.2), Stage(256, 40, 0.15)),
        joint=(JointStage(64, 12, 0.12), JointStage(128, 10, 0.08), JointStage(256, 12, 0.04, weight_rate=0.003)),
    ),
}


NEAR_W, W_PLUS, W_ONLY = "W+ near W", "W+", "W"
SPACES = (NEAR_W, W_PLUS, W_ONLY)
"""Where codes may lie: rows that differ little (a penalty on their differences), freely, or not at all."""


@dataclass(frozen=True)
class InversionSettings:
    """How much work goes into the codes."""

    quality: str = "normal"
    """One of `QUALITIES`."""
    keyframe_every: int = 0
    """0 chooses keyframes by motion."""
    max_keyframes: int = 0
    """0 means no bound."""
    loss_target: float = 0.0
    """A keyframe is finished early once its loss is at most this; 0 takes every step."""
    max_steps: int = 0
    """Upper bound on the steps of the first keyframe, and on those of each keyframe in a joint stage; 0 means those
    of the quality."""
    tune: bool = True
    """Whether the generator is tuned to the person, where the quality says how."""
    weights: LossWeights = field(default_factory=LossWeights)
    space: str = NEAR_W
    """One of `SPACES`."""
    offset_rank: int = 0
    """Dimensions in which the codes of a shot may differ from their mean (see `low_rank`); 0: any."""
    together: bool = True
    """False finds each keyframe alone, by the steps of the first one: to measure what refining them together is
    worth."""

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise ValueError(f"quality should be one of {', '.join(QUALITIES)}, but is {self.quality!r}.")
        if self.space not in SPACES:
            raise ValueError(f"space should be one of {', '.join(SPACES)}, but is {self.space!r}.")
        if self.keyframe_every < 0 or self.max_keyframes < 0 or self.max_keyframes == 1:
            raise ValueError(
                f"keyframe_every = {self.keyframe_every} and max_keyframes = {self.max_keyframes}: use 0 for "
                "automatic, else at least 1 and 2."
            )
        for name in ("max_steps", "loss_target", "offset_rank"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} should not be negative, but is {value}.")

    @property
    def loss_weights(self) -> LossWeights:
        """`weights`, without the penalty on differences of rows where `space` leaves them free."""
        return replace(self.weights, row_mean=0.0) if self.space == W_PLUS else self.weights

    def first_stages(self, resolution: int = SIZE) -> tuple[Stage, ...]:
        """The stages of the first keyframe, within `max_steps` and the generator's resolution."""
        stages = tuple(replace(stage, size=min(stage.size, resolution)) for stage in QUALITIES[self.quality].first)
        total = sum(stage.steps for stage in stages)
        if not self.max_steps or total <= self.max_steps:
            return stages
        return tuple(replace(stage, steps=max(1, stage.steps * self.max_steps // total)) for stage in stages)

    def joint_stages(self, keyframes: int, resolution: int = SIZE, *, can_tune: bool = True) -> tuple[JointStage, ...]:
        """The stages of the joint refinement, within `max_steps` visits and the generator's resolution."""
        stages = []
        for stage in QUALITIES[self.quality].joint:
            stage = stage if self.tune and can_tune else replace(stage, weight_rate=0.0)
            visits = stage.visits_of(keyframes)
            visits = min(visits, self.max_steps or visits)
            stages.append(replace(stage, size=min(stage.size, resolution), visits=visits, least_steps=0))
        return tuple(stages)
