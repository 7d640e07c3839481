"""Checks that every stage makes on what it is handed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.checks import check_finite


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_value_that_is_not_finite_is_found_and_placed(bad: float, dtype: torch.dtype) -> None:
    values = torch.linspace(-1, 1, 60, dtype=torch.float32).to(dtype).reshape(3, 4, 5)
    check_finite("values", values)
    values[1, 2, 3] = bad
    for given in (values, values.double().numpy()):
        with pytest.raises(ValueError, match=r"values holds 1 values .* the first at \(1, 2, 3\)"):
            check_finite("values", given)


@pytest.mark.parametrize("values", [torch.zeros(0, 3), torch.arange(4), torch.tensor([True]), np.zeros((0, 2))])
def test_nothing_and_whole_numbers_are_finite(values: torch.Tensor | np.ndarray) -> None:
    check_finite("values", values)
