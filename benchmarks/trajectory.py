"""Measure the trajectory ODE: errors and times of the fit, the solvers side by side, kernels and host reads, memory.

    python benchmarks/trajectory.py --out benchmarks/results/trajectory-<machine>.json

One run, one thread. On a shared machine wall time is noise: processor time stands beside it, and what counts are the
ratios. The released codes are read from `shared` beside the repository (or DYNODE_SHARED) and left out where that is
missing; torchode is left out where it is not installed. At the end stands what is wanted and whether it was found.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trajectory_clips import (
    CHANNELS,
    FAMILY,
    FPS,
    ROWS,
    clip_of,
    rel,
    released_clip,
    synthetic_codes,
    timed,
)
from trajectory_targets import targets
from trajectory_training import paper_fit

from dynode_core.ode import TrajectorySettings, fit_trajectory, solve_at_times
from dynode_core.ode.jitter import choose_smoothing, estimate_jitter
from dynode_core.ode.path import solve_path
from dynode_core.ode.spline import SplineAlgebra
from dynode_core.types import EditedLatent, LatentTrajectory
from machine import load_average, machine

VIEWS = {
    "view",
    "expand",
    "select",
    "slice",
    "unsqueeze",
    "squeeze",
    "permute",
    "transpose",
    "t",
    "as_strided",
    "alias",
    "detach",
    "_unsafe_view",
    "reshape",
    "lift_fresh",
    "unbind",
    "split",
    "unflatten",
}


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--lengths", type=int, nargs="+", default=[11, 120, 300, 1000], help="keyframes of the fits")
    parser.add_argument("--device", default="cpu", help="where fields are fitted and solved")
    parser.add_argument("--paper-steps", type=int, default=20, help="gradient steps that are timed, of 5000")
    parser.add_argument("--only", nargs="+", default=None, help="measure these parts alone and print them")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    about = machine() | {"threads": torch.get_num_threads(), "gpu": gpu}
    report: dict[str, Any] = {"machine": about}
    for name, measure in (
        ("released_codes", lambda: released_codes(options.repeats, options.device)),
        ("long_clip", lambda: long_clip(options.repeats, options.device)),
        ("solvers", lambda: solvers(options.repeats, options.device)),
        ("fit_by_length", lambda: fit_by_length(options.lengths, options.repeats, options.device)),
        ("smoothing", smoothing),
        ("memory", lambda: memory(options.device)),
        ("paper_fit", lambda: paper_fit(options.paper_steps, options.repeats, options.device)),
    ):
        if options.only and name not in options.only:
            continue
        report[name] = measure()
        print(json.dumps({name: report[name]}, indent=2), flush=True)
    report["targets"] = targets(report, options.device)
    print(json.dumps({"targets": report["targets"]}, indent=2))
    report["machine"]["load_average_after"] = load_average()
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def edits(trajectory: LatentTrajectory, times: np.ndarray) -> dict[str, dict[str, float]]:
    """Worst cosine and norm ratios over the clip of an edit in the hull of the codes and of one mostly outside it."""
    generator = torch.Generator().manual_seed(5)
    subspace = trajectory.subspace
    changes = {
        "in_hull": subspace.decode_change(0.3 * torch.randn(1, subspace.rank, generator=generator))[0],
        "out_of_hull": torch.randn(1, CHANNELS, generator=generator).expand(ROWS, -1).clone(),
    }
    found = {}
    for name, change in changes.items():
        latent = EditedLatent(trajectory.w_plus_0 + change, trajectory.w_plus_0, (name,), FAMILY)
        sample = solve_at_times(trajectory, times, latent=latent)
        carried = (sample.w_plus - sample.base_w_plus).flatten(1).double()
        ratio = carried.norm(dim=1) / change.double().norm()
        cosine = torch.cosine_similarity(carried, change.flatten()[None].double())
        found[name] = {"cosine": float(cosine.min()), "norm_low": float(ratio.min()), "norm_high": float(ratio.max())}
    return found


def released_codes(repeats: int, device: str) -> dict[str, Any]:
    """The authors' 11 codes: every 4th frame of a talking face."""
    clip = released_clip()
    if clip is None:
        return {"skipped": "no released codes at hand"}
    from scipy.interpolate import CubicSpline

    codes, times = clip.w_plus.flatten(1).numpy(), clip.times
    quick = TrajectorySettings(check_held_out=False, device=device)
    trajectory, cost = timed(lambda: fit_trajectory(clip, quick), repeats)
    certificate = fit_trajectory(clip, TrajectorySettings(device=device)).certificate
    cubic = CubicSpline(times[::2], codes[::2], bc_type="natural")(times[1::2])
    solved = {f: solve_at_times(trajectory, times, faithful=f).w_plus.flatten(1).numpy() for f in (0.0, 1.0)}
    return {
        "fit": cost,
        "observed_rel": rel(solved[1.0], codes),
        "observed_rel_ode_alone": rel(solved[0.0], codes),
        "drift": certificate["drift"],
        "held_out_rel": certificate["held_out_rel"],
        "held_out_linear_rel": certificate["held_out_linear_rel"],
        "held_out_natural_cubic_rel": rel(cubic, codes[1::2]),
        "edits": edits(trajectory, np.linspace(0, times[-1], 41)),
    }


def long_clip(repeats: int, device: str, count: int = 1000) -> dict[str, Any]:
    """A thousand codes: errors against the motion without jitter, relative to the spread of the codes."""
    from scipy.interpolate import CubicSpline

    clean, noisy = synthetic_codes(count)
    times, mean = np.arange(count) / FPS, clean.mean(axis=0)
    trajectory, cost = timed(
        lambda: fit_trajectory(clip_of(noisy, times), TrajectorySettings(check_held_out=False, device=device)), repeats
    )
    smooth = solve_at_times(trajectory, times, faithful=0.0).w_plus.flatten(1).numpy()
    kept, left = np.arange(0, count, 4), np.setdiff1d(np.arange(count - 3), np.arange(0, count, 4))
    sparse = fit_trajectory(clip_of(noisy[kept], times[kept], times), TrajectorySettings(device=device))
    part = slice(None, None, 16)
    truth, about = clean[left][:, part], mean[part]
    straight = np.stack([np.interp(times[left], times[kept], column) for column in noisy[kept][:, part].T], axis=1)
    cubic = CubicSpline(times[kept], noisy[kept][:, part], bc_type="natural")(times[left])
    held_out = {
        f"ode_faithful_{faithful:g}": rel(
            solve_at_times(sparse, times[left], faithful=faithful).w_plus.flatten(1).numpy()[:, part], truth, about
        )
        for faithful in (0.0, 1.0)
    }
    held_out |= {"linear": rel(straight, truth, about), "natural_cubic": rel(cubic, truth, about)}
    return {
        "fit": cost,
        "drift": trajectory.certificate["drift"],
        "observed_noise": rel(noisy, clean, mean),
        "error_to_clean": rel(smooth, clean, mean),
        "edits": edits(trajectory, times[::5]),
        "every_4th_frame": {**held_out, "drift": sparse.certificate["drift"]},
    }


class Operations(TorchDispatchMode):
    """Counts operations that a device would run as kernels, and values handed to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.host_reads = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "is_nonzero"):
            self.host_reads += 1
        elif name not in VIEWS:
            self.kernels += 1
        return func(*args, **(kwargs or {}))


def solvers(repeats: int, device: str, count: int = 993) -> dict[str, Any]:
    """Two trajectories through the field of a clip of `count` frames, every solver at rtol 1e-5."""
    _, noisy = synthetic_codes(count)
    times = np.arange(count) / FPS
    settings = TrajectorySettings(check_held_out=False, smoothing=1.0, device=device)
    field = fit_trajectory(clip_of(noisy, times), settings).vector_field
    start = field.starts[:1]
    probe = 0.3 * torch.randn(1, start.shape[1], generator=torch.Generator().manual_seed(5)).to(start)
    y0, tau = torch.cat([start, start + probe]), np.linspace(0, 1, count)
    reference = solve_path(field, y0, tau, rtol=1e-8, atol=1e-9).y
    found: dict[str, Any] = {"windows": len(field.edges) - 1}
    for method in ("dopri5", "dopri5 in turn", "parallel", "torchdiffeq dopri5"):
        rounds = repeats if method in ("dopri5", "parallel") else 1
        solution, cost = timed(lambda m=method: solve_path(field, y0, tau, method=m), rounds)
        with Operations() as operations:
            solve_path(field, y0, tau, method=method)
        error = float((solution.y - reference).square().mean().sqrt() / reference.square().mean().sqrt())
        found[method] = {
            **cost,
            "nfe": solution.nfe,
            "sweeps": solution.sweeps,
            "error": error,
            "kernels": operations.kernels,
            "host_reads": operations.host_reads,
        }
    found["torchode"] = with_torchode(field, y0, tau, reference)
    base = found["torchdiffeq dopri5"]
    found["times_faster_than_torchdiffeq"] = {
        name: {clock: round(base[clock] / found[name][clock], 1) for clock in ("wall_ms", "cpu_ms")}
        for name in ("dopri5", "dopri5 in turn", "parallel")
    }
    return found


def with_torchode(field: Any, y0: torch.Tensor, tau: np.ndarray, reference: torch.Tensor) -> dict[str, Any]:
    """The same rows of windows in torchode, given our starts and shifts: its step and controller, nothing else."""
    try:
        import torchode
    except ImportError:
        return {"skipped": "torchode is not installed"}
    import copy

    windows = len(field.edges) - 1
    working = copy.deepcopy(field).float()
    working.edges = field.edges
    index, batch, rank = torch.arange(windows, device=y0.device), len(y0), y0.shape[1]

    def rows(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return working.in_windows(index, t.view(windows, batch), y.view(windows, batch, rank)).reshape(-1, rank)

    term = torchode.ODETerm(rows)
    solver = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term), torchode.IntegralController(atol=1e-6, rtol=1e-5, term=term)
    )
    starts = (field.starts[:, None] + (y0 - field.starts[0])).float().reshape(-1, rank)
    x = torch.linspace(-1, 1, 64, device=y0.device).expand(windows * batch, -1)
    solution, cost = timed(lambda: solver.solve(torchode.InitialValueProblem(y0=starts, t_eval=x)), 1)
    steps = int(solution.stats["n_steps"].max())
    return {**cost, "steps": steps, "status": int(solution.status.max())}


def fit_by_length(lengths: list[int], repeats: int, device: str) -> dict[str, Any]:
    """Fit with certificate, without the held-out fit."""
    found = {}
    for count in lengths:
        _, noisy = synthetic_codes(count)
        clip = clip_of(noisy, np.arange(count) / FPS)
        settings = TrajectorySettings(check_held_out=False, device=device)
        trajectory, cost = timed(lambda c=clip, s=settings: fit_trajectory(c, s), repeats if count <= 1000 else 1)
        wanted = ("passed", "drift", "tries", "reference", "windows")
        found[str(count)] = {**cost, **{name: trajectory.certificate[name] for name in wanted}}
    return found


def smoothing() -> list[dict[str, float]]:
    """Chosen smoothing against generalised cross-validation and the best possible, error relative to the motion."""
    rows = []
    for count, correlation, seed in (
        (60, 0.3, 3),
        (120, 0.0, 3),
        (120, 0.6, 3),
        (300, 0.3, 3),
        (300, 0.6, 3),
        (300, 0.8, 4),
    ):
        rng = np.random.default_rng(seed)
        times = np.arange(count, dtype=np.float64)
        phases, rates = rng.uniform(0, 6.28, 1024), rng.uniform(0.02, 0.2, 1024)
        clean = np.sin(rates * times[:, None] + phases)
        noise = rng.standard_normal(clean.shape)
        for i in range(1, count):
            noise[i] = correlation * noise[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
        samples = clean + 0.1 * noise
        noisy, clean = samples[:, :64], clean[:, :64]
        algebra = SplineAlgebra.of(times)
        grid = np.logspace(-2, 5, 50)
        errors = {lam: rel(algebra.smooth(noisy, lam), clean) for lam in grid}
        identity = np.eye(count)
        scores = {
            lam: np.square(noisy - algebra.smooth(noisy, lam)).sum()
            / (1 - np.trace(algebra.smooth(identity, lam)) / count) ** 2
            for lam in grid
        }
        jitter = estimate_jitter(times, noisy, samples)
        rows.append(
            {
                "keyframes": count,
                "correlation": correlation,
                "estimated_correlation": jitter.correlation,
                "unsmoothed": rel(noisy, clean),
                "ours": rel(algebra.smooth(noisy, choose_smoothing(times, noisy, jitter)), clean),
                "gcv": errors[min(scores, key=scores.__getitem__)],
                "best": min(errors.values()),
            }
        )
    return rows


def _resident_mib(field: str) -> float:
    """An entry of the status of this process: VmRSS (now) or VmHWM (peak since it was last reset)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def memory(device: str) -> dict[str, Any]:
    """MiB at the peak of a solve at ever more times, and of reading all of its codes in chunks of 64.

    Beside them the MiB of the states (of 64 float32), which stay in memory, and of the codes, which do not.
    """
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return {"skipped": "needs Linux"}
    _, noisy = synthetic_codes(120)
    settings = TrajectorySettings(check_held_out=False, device=device)
    trajectory = fit_trajectory(clip_of(noisy, np.arange(120) / FPS), settings)
    field = trajectory.vector_field
    solve_path(field, field.starts[:1], np.linspace(0, 1, 10))
    found = {}
    for outputs in (100, 10_000, 100_000, 400_000):
        reset.write_text("5")
        before = _resident_mib("VmRSS")
        states = solve_path(field, field.starts[:1], np.linspace(0, 1, outputs)).y
        peak = _resident_mib("VmHWM") - before
        found[str(outputs)] = {"peak": round(peak, 1), "states": round(states.numel() * 4 / 2**20, 1)}
    for outputs in (100, 1000, 10_000):
        reset.write_text("5")
        before = _resident_mib("VmRSS")
        sample = solve_at_times(trajectory, np.linspace(0, 119 / FPS, outputs), stream=True)
        for start in range(0, outputs, 64):
            sample.w_plus[start : start + 64]
        peak = _resident_mib("VmHWM") - before
        found[f"streamed {outputs}"] = {"peak": round(peak, 1), "codes": round(sample.w_plus.shape.numel() * 4 / 2**20)}
    return found


if __name__ == "__main__":
    main()
