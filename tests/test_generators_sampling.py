"""Seeds to codes: repeatable, truncated as NVIDIA's mapping network truncates, one class at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_generators import tiny_mobile, tiny_stylegan2

from dynode_pack.dynode_core.generators.sampling import LARGEST_SEED, num_classes, sample_codes

FAMILY = "stylegan2-bird-64x10"


@pytest.fixture(scope="module", params=["stylegan2", "mobile_stylegan"])
def generator(request):
    return tiny_stylegan2(64, FAMILY) if request.param == "stylegan2" else tiny_mobile()


def test_a_seed_gives_the_same_code_whatever_is_beside_it(generator) -> None:
    together = sample_codes(generator, [3, 4, LARGEST_SEED], truncation_psi=0.7)
    assert together.shape == (3, generator.num_ws, generator.w_dim)
    torch.testing.assert_close(together[1:2], sample_codes(generator, [4], truncation_psi=0.7))
    assert torch.equal(together, sample_codes(generator, [3, 4, LARGEST_SEED], truncation_psi=0.7))
    assert not torch.allclose(together[0], together[1])


def test_codes_are_those_of_nvidias_scripts(generator) -> None:
    z = torch.from_numpy(np.random.RandomState(85).randn(1, generator.z_dim)).float()
    expected = generator.map(z, truncation_psi=0.5)
    torch.testing.assert_close(sample_codes(generator, [85], truncation_psi=0.5), expected)


def test_psi_zero_is_the_mean_and_one_is_untouched(generator) -> None:
    mean = generator.w_avg.expand(1, generator.num_ws, -1)
    torch.testing.assert_close(sample_codes(generator, [1], truncation_psi=0.0), mean, rtol=0, atol=1e-6)
    z = torch.from_numpy(np.random.RandomState(1).randn(1, generator.z_dim)).float()
    torch.testing.assert_close(sample_codes(generator, [1], truncation_psi=1.0), generator.map(z))


def test_cutoff_truncates_the_first_rows_only(generator) -> None:
    whole, full = (sample_codes(generator, [7], truncation_psi=psi) for psi in (1.0, 0.3))
    cut = sample_codes(generator, [7], truncation_psi=0.3, truncation_cutoff=4)
    torch.testing.assert_close(cut[:, :4], full[:, :4])
    torch.testing.assert_close(cut[:, 4:], whole[:, 4:])


def test_cutoff_agrees_with_the_mapping_network() -> None:
    generator = tiny_stylegan2(64, FAMILY)
    z = torch.from_numpy(np.random.RandomState(7).randn(1, 16)).float()
    expected = generator.map(z, truncation_psi=0.5, truncation_cutoff=4)
    torch.testing.assert_close(sample_codes(generator, [7], truncation_psi=0.5, truncation_cutoff=4), expected)


def test_classes_give_other_codes() -> None:
    generator = tiny_stylegan2(64, FAMILY, classes=3)
    assert num_classes(generator) == 3
    first, last = (sample_codes(generator, [5], class_index=index) for index in (0, 2))
    assert not torch.allclose(first, last)
    with pytest.raises(ValueError, match="3 classes, 0 to 2"):
        sample_codes(generator, [5], class_index=3)


def test_what_cannot_be_sampled_is_explained(generator) -> None:
    for seeds in ([], [-1], [LARGEST_SEED + 1]):
        with pytest.raises(ValueError, match="Seeds should be"):
            sample_codes(generator, seeds)
    with pytest.raises(ValueError, match="truncation_cutoff"):
        sample_codes(generator, [1], truncation_cutoff=99)
    with pytest.raises(ValueError, match="no classes"):
        sample_codes(generator, [1], class_index=1)
