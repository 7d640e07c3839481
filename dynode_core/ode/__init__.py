"""Trajectories of latent codes as solutions of an ordinary differential equation."""

from .files import load_trajectory, save_trajectory
from .gradient import GradientSettings, train_trajectory
from .later_edits import LaterEdit
from .path import METHODS
from .plane import path_in_plane
from .plot import plot_trajectory
from .reference import REFERENCES
from .remap import CURVES, RemapTimes
from .sampling import SolveSettings, clamp_times, solve_at_times, solve_batch_at_times
from .settings import TrajectorySettings
from .times import (
    PLAYBACKS,
    CountTimes,
    FactorTimes,
    FpsTimes,
    ListTimes,
    SameTimes,
    TimeChoice,
    output_times,
    parse_times,
)
from .trajectory import fit_trajectory
from .variation import Variation

__all__ = [
    "CURVES",
    "METHODS",
    "PLAYBACKS",
    "REFERENCES",
    "CountTimes",
    "FactorTimes",
    "FpsTimes",
    "GradientSettings",
    "LaterEdit",
    "ListTimes",
    "RemapTimes",
    "SameTimes",
    "SolveSettings",
    "TimeChoice",
    "TrajectorySettings",
    "Variation",
    "clamp_times",
    "fit_trajectory",
    "load_trajectory",
    "output_times",
    "parse_times",
    "path_in_plane",
    "plot_trajectory",
    "save_trajectory",
    "solve_at_times",
    "solve_batch_at_times",
    "train_trajectory",
]
