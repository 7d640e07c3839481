"""Checks that every stage makes on what it is handed. Each error says what was expected and what arrived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .code_stream import CodeStream


def check_shape(name: str, array: Tensor | np.ndarray | CodeStream, expected: Sequence[int | None | str]) -> None:
    """Raise ValueError unless `array` has the `expected` shape; None or a symbol such as "T" matches any size."""
    shape = tuple(array.shape)
    sizes_match = len(shape) == len(expected) and all(
        not isinstance(want, int) or want == have for want, have in zip(expected, shape, strict=True)
    )
    if not sizes_match:
        wanted = ", ".join("?" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} should have shape ({wanted}), but has shape {shape}.")


def check_finite(name: str, array: Tensor | np.ndarray) -> None:
    """Raise ValueError if `array` holds NaN or infinity, naming the first bad place."""
    if isinstance(array, Tensor) and _ends_are_finite(array):
        return
    finite = np.isfinite(array) if isinstance(array, np.ndarray) else torch.isfinite(array).cpu().numpy()
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"{name} holds {int((~finite).sum())} values that are NaN or infinite, the first at {place}.")


def _ends_are_finite(array: Tensor) -> bool:
    """Whether least and greatest value are finite, and so all of them: NaN comes through. A tenth of the time of
    looking at each value."""
    if array.numel() == 0 or not array.is_floating_point():
        return False
    return bool(torch.stack(array.detach().aminmax()).isfinite().all())


def check_range(name: str, value: float, lowest: float, highest: float) -> None:
    """Raise ValueError unless a setting lies between two bounds, which are allowed."""
    if not lowest <= value <= highest:
        raise ValueError(f"{name} should lie between {lowest:g} and {highest:g}, but is {value:g}.")


def check_increasing(name: str, times: np.ndarray) -> None:
    """Raise ValueError unless the `(N,)` `times` (seconds) are finite and strictly increasing."""
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"{name} should be a list of times, but has shape {times.shape}.")
    check_finite(name, times)
    steps = np.diff(times)
    if len(steps) and not (steps > 0).all():
        i = int(np.argmin(steps > 0))
        raise ValueError(
            f"{name} should increase from each entry to the next, but entry {i} is {times[i]:g} s and entry {i + 1} is "
            f"{times[i + 1]:g} s. Sort them and remove repeats."
        )


def check_network_output(network: str, values: Tensor) -> None:
    """Raise RuntimeError if what `network` ("The generator") made, or a loss of it, is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise RuntimeError(f"{network} gave NaN. If it runs in fp16, load it in fp32.")


def check_family(what: str, family: str, expected: str) -> None:
    """Raise ValueError if codes or directions of one generator family meet a generator of another."""
    if family != expected:
        raise ValueError(
            f"{what} belongs to the generator family {family!r}, but the connected generator is {expected!r}. "
            "Use the generator that the codes were made with, or a direction made for this generator."
        )
