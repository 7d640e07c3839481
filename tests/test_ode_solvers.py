"""The solvers on exact problems, against SciPy and torchdiffeq, and on fields that no solver can follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import EXACT_PROBLEMS, Problem, driven, oscillator
from torch.utils._python_dispatch import TorchDispatchMode

from dynode_pack.dynode_core.ode.dopri5 import solve_dense
from dynode_pack.dynode_core.ode.external import TORCHDIFFEQ_METHODS
from dynode_pack.dynode_core.ode.solution import Status
from dynode_pack.dynode_core.ode.solve import solve

EXPECTED_ERROR = {"euler": 0.3, "midpoint": 2e-2}
"""Of fixed methods of low order at 64 steps; the others reach 2e-3."""


def times_of(problem: Problem, count: int = 21) -> torch.Tensor:
    return torch.linspace(problem.t0, problem.t1, count, dtype=torch.float64)


@pytest.mark.parametrize("problem", EXACT_PROBLEMS, ids=lambda p: p.name)
@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_dopri5_meets_the_tolerance_on_exact_problems(problem: Problem, rtol: float) -> None:
    times = times_of(problem)
    solution = solve(problem.field, problem.y0, times, rtol=rtol, atol=rtol * 1e-2)
    assert solution.status is Status.SUCCESS
    assert float((solution.y - problem.exact(times)).abs().max()) < 20 * rtol


def _with_steps(problem: Problem, steps: int) -> tuple[float, float]:
    """Error at the end of `steps` equal steps and the largest error inside them."""
    edges = torch.linspace(problem.t0, problem.t1, steps + 1, dtype=torch.float64)
    y, inside = problem.y0, 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        rows = torch.ones(len(y), dtype=torch.float64)
        # Tolerances this loose accept the first step that is offered; the end of the span limits it.
        dense = solve_dense(problem.field, y, low * rows, high * rows, rtol=1e6, atol=1e6)
        assert len(dense.starts) == 1
        middle = low + (high - low) * torch.tensor([0.3, 0.7], dtype=torch.float64)
        found = dense.evaluate(middle.expand(len(y), -1))
        inside = max(inside, float((found - problem.exact(middle)).abs().max()))
        y = dense.final
    return float((y - problem.exact(edges[-1:])[:, 0]).abs().max()), inside


@pytest.mark.parametrize("problem", [oscillator(), driven()], ids=lambda p: p.name)
def test_error_shrinks_at_the_order_of_the_method(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynode_pack.dynode_core.ode import dopri5

    monkeypatch.setattr(dopri5, "_first_step", lambda field, t, y, slope, span, rtol, atol: span.abs())
    (coarse, coarse_inside), (fine, fine_inside) = _with_steps(problem, 16), _with_steps(problem, 32)
    assert 4.6 < math.log2(coarse / fine) < 5.6
    assert 3.6 < math.log2(coarse_inside / fine_inside) < 5.6  # the interpolant is of order 4


def test_dense_output_costs_no_evaluations_and_agrees_between_grids() -> None:
    problem = driven()
    few, many = times_of(problem, 11), times_of(problem, 1001)
    sparse, dense = solve(problem.field, problem.y0, few), solve(problem.field, problem.y0, many)
    assert sparse.nfe == dense.nfe
    assert torch.allclose(sparse.y, dense.y[:, ::100], atol=1e-12)


def test_each_row_has_its_own_step_and_the_result_of_a_solo_run() -> None:
    rates = torch.tensor([[1.0], [30.0]], dtype=torch.float64)
    both = solve(lambda t, y: -rates * y, torch.ones(2, 1, dtype=torch.float64), torch.linspace(0, 1, 5), rtol=1e-6)
    solo = solve(lambda t, y: -y, torch.ones(1, 1, dtype=torch.float64), torch.linspace(0, 1, 5), rtol=1e-6)
    assert torch.allclose(both.y[:1], solo.y, rtol=0, atol=1e-13)
    slow = solve_dense(
        lambda t, y: -rates * y, torch.ones(2, 1).double(), torch.zeros(2).double(), torch.ones(2).double(), rtol=1e-6
    )
    assert slow.accepted[1] > slow.accepted[0]


def test_forward_then_back_returns_to_the_start() -> None:
    problem = oscillator()
    there = solve(problem.field, problem.y0, times_of(problem), rtol=1e-9, atol=1e-10)
    back = solve(problem.field, there.y[:, -1], times_of(problem).flip(0), rtol=1e-9, atol=1e-10)
    assert torch.allclose(back.y[:, -1], problem.y0, atol=1e-7)
    assert torch.allclose(back.y.flip(1), there.y, atol=1e-7)


@pytest.mark.parametrize("method", TORCHDIFFEQ_METHODS)
def test_every_named_method_solves_the_driven_problem(method: str) -> None:
    problem, times = driven(), times_of(driven(), 6)
    solution = solve(problem.field, problem.y0, times, method=method, rtol=1e-5, atol=1e-6)
    assert solution.status is Status.SUCCESS and solution.nfe > 0
    error = float((solution.y - problem.exact(times)).abs().max())
    assert error < EXPECTED_ERROR.get(method, 2e-3)


def _detest() -> list[tuple[str, object, np.ndarray, float]]:
    """Problems of the DETEST set (Hull, Enright, Fellen & Sedgwick, SIAM J. Numer. Anal. 9, 1972)."""
    chain = np.diag(-np.ones(10)) + np.diag(np.ones(9), -1)
    chain[9, 9] = 0.0
    return [
        ("A3", lambda t, y: y * math.cos(t), np.array([1.0]), 20.0),
        ("A4", lambda t, y: y / 4 * (1 - y / 20), np.array([1.0]), 20.0),
        ("B1", lambda t, y: np.array([2 * (y[0] - y[0] * y[1]), -(y[1] - y[0] * y[1])]), np.array([1.0, 3.0]), 20.0),
        ("B4", _torus, np.array([3.0, 0.0, 0.0]), 20.0),
        ("C1", lambda t, y: chain @ y, np.eye(10)[0], 20.0),
        ("D3", _orbit, np.array([0.5, 0.0, 0.0, math.sqrt(3.0)]), 20.0),
        ("E2", lambda t, y: np.array([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), np.array([2.0, 0.0]), 20.0),
    ]


def _torus(t: float, y: np.ndarray) -> np.ndarray:
    radius = math.hypot(y[0], y[1])
    return np.array([-y[1] - y[0] * y[2] / radius, y[0] - y[1] * y[2] / radius, y[0] / radius])


def _orbit(t: float, y: np.ndarray) -> np.ndarray:
    cubed = math.hypot(y[0], y[1]) ** 3
    return np.array([y[2], y[3], -y[0] / cubed, -y[1] / cubed])


@pytest.mark.parametrize("case", _detest(), ids=lambda case: case[0])
def test_agrees_with_scipy_on_detest_problems(case: tuple) -> None:
    from scipy.integrate import solve_ivp

    _, function, y0, end = case
    times = np.linspace(0, end, 9)
    expected = solve_ivp(function, (0, end), y0, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13).y.T

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(function(float(t[0]), y[0].numpy())))[None]

    solution = solve(field, torch.from_numpy(y0)[None], torch.from_numpy(times), rtol=1e-8, atol=1e-9)
    assert solution.status is Status.SUCCESS
    scale = np.abs(expected).max()
    assert float(np.abs(solution.y[0].numpy() - expected).max()) < 2e-5 * scale


def test_agrees_with_torchdiffeq_dopri5_on_a_network() -> None:
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.Tanh(), torch.nn.Linear(32, 6)).double()
    y0, times = torch.randn(2, 6, dtype=torch.float64), torch.linspace(0, 3, 13, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(lambda t, y: network(y), y0, times, rtol=1e-9, atol=1e-10)
        theirs = solve(lambda t, y: network(y), y0, times, method="torchdiffeq dopri5", rtol=1e-9, atol=1e-10)
    assert torch.allclose(ours.y, theirs.y, atol=1e-8)


def test_gradients_agree_with_finite_differences() -> None:
    def end(y0: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        solution = solve(lambda t, y: torch.tanh(y) * rate + t[:, None], y0, torch.tensor([0.0, 0.4, 1.0]), rtol=1e-10)
        return solution.y

    y0 = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (y0, rate), eps=1e-5, atol=1e-5)


def test_a_solution_that_blows_up_ends_with_a_status() -> None:
    solution = solve(lambda t, y: y * y, torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 2.0]), max_steps=500)
    assert solution.status in (Status.STEP_TOO_SMALL, Status.NOT_FINITE)
    with pytest.raises(RuntimeError, match="larger rtol|nearer to"):
        solution.raise_for_status("dopri5")


def test_a_stiff_field_ends_with_a_status() -> None:
    field = lambda t, y: -1e6 * (y - torch.cos(t)[:, None])  # noqa: E731
    solution = solve(field, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0]), max_steps=200)
    assert solution.status is Status.MAX_STEPS and solution.num_steps == 200
    with pytest.raises(RuntimeError, match="stiff"):
        solution.raise_for_status("dopri5")


def test_a_field_that_jumps_ends_with_a_status_or_an_answer() -> None:
    field = lambda t, y: torch.where(y >= 0, -torch.ones_like(y), torch.ones_like(y))  # noqa: E731
    solution = solve(
        field, torch.full((1, 1), 0.1).double(), torch.tensor([0.0, 1.0]), rtol=1e-8, atol=1e-10, max_steps=300
    )
    assert solution.status in (Status.MAX_STEPS, Status.STEP_TOO_SMALL)


def test_a_field_without_lipschitz_bound_is_followed() -> None:
    solution = solve(lambda t, y: -y.abs().sqrt(), torch.ones(1, 1).double(), torch.tensor([0.0, 1.0]), rtol=1e-6)
    assert solution.status is Status.SUCCESS
    assert abs(float(solution.y[0, -1, 0]) - 0.25) < 1e-5


def test_one_failing_row_leaves_the_others_alone() -> None:
    y0 = torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    dense = solve_dense(lambda t, y: y * y, y0, zero, zero + 2, rtol=1e-8, atol=1e-10, max_steps=500)
    assert dense.status[0] != Status.SUCCESS and dense.status[1] == Status.SUCCESS
    assert torch.allclose(dense.final[1], torch.tensor([0.1 / 0.8], dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize("method", ["torchdiffeq dopri5", "dopri8"])
def test_torchdiffeq_failures_come_back_as_a_status(method: str) -> None:
    solution = solve(
        lambda t, y: y * y,
        torch.ones(1, 1),
        torch.tensor([0.0, 2.0]),
        method=method,
        rtol=1e-7,
        atol=1e-9,
        max_steps=200,
    )
    assert solution.status is not Status.SUCCESS


class _HostReads(TorchDispatchMode):
    """Counts operations that hand a value of a tensor to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero"):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_steps_read_nothing_back_to_the_host() -> None:
    problem = oscillator()
    rows = torch.zeros(1, dtype=torch.float64)
    with _HostReads() as reads:
        dense = solve_dense(problem.field, problem.y0, rows, rows + 4, rtol=1e-8, atol=1e-9, check_every=16)
    assert len(dense.starts) > 48
    assert reads.count <= len(dense.starts) // 16 + 1


@pytest.mark.parametrize(
    ("times", "message"), [([0.0, 0.5, 0.5], "strictly up"), ([0.0, 1.0, 0.5], "strictly up"), ([0.0, math.nan], "NaN")]
)
def test_times_out_of_order_are_refused(times: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve(lambda t, y: y, torch.ones(1, 1), torch.tensor(times))


def test_unknown_methods_and_tolerances_are_refused() -> None:
    with pytest.raises(ValueError, match="dopri5.*dopri8"):
        solve(lambda t, y: y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), method="dopri99")
    with pytest.raises(ValueError, match="rtol should be > 0"):
        solve(lambda t, y: y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), rtol=0.0)


@pytest.mark.parametrize("method", [m for m in TORCHDIFFEQ_METHODS if m != "fehlberg2"] + ["dopri5"])
def test_every_result_tells_its_cost_and_how_it_ended(method: str) -> None:
    problem = oscillator()
    solution = solve(problem.field, problem.y0, times_of(problem, 5), method=method, rtol=1e-4, atol=1e-5)
    assert solution.status is Status.SUCCESS and solution.status.label == "success"
    assert solution.nfe > 0 and solution.num_steps > 0
