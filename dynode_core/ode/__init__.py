"""Trajectories of latent codes as solutions of an ordinary differential equation."""

from .files import load_trajectory, save_trajectory
from .gradient import GradientSettings, train_trajectory
from .path import METHODS
from .plot import plot_trajectory
from .reference import REFERENCES
from .remap import CURVES, RemapTimes
from .sampling import clamp_times, solve_at_times
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

__all__ = [
    "CURVES",
    "METHODS",
    "PLAYBACKS",
    "REFERENCES",
    "CountTimes",
    "FactorTimes",
    "FpsTimes",
    "GradientSettings",
    "ListTimes",
    "RemapTimes",
    "SameTimes",
    "TimeChoice",
    "TrajectorySettings",
    "clamp_times",
    "fit_trajectory",
    "load_trajectory",
    "output_times",
    "parse_times",
    "plot_trajectory",
    "save_trajectory",
    "solve_at_times",
    "train_trajectory",
]
