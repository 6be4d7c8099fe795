"""The fitted temperature against a minimiser of scipy that sees only values."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from fewbits.classifiers import fit_temperature
from fewbits.errors import FewbitsError


def sample(scale: float, words: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 100, words, generator=generator)
    target = torch.multinomial(z.reshape(-1, words).softmax(-1), 1, generator=generator).view(3, 100)
    return scale * z, target


@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0])
@pytest.mark.parametrize("rows", [70, 1024])
def test_the_temperature_is_the_minimum(scale, rows):
    z, target = sample(scale)

    def nll(log_temperature: float) -> float:
        log_prob = log_softmax(z.double().numpy() / math.exp(log_temperature), axis=-1)
        return -np.take_along_axis(log_prob, target[..., None].numpy(), axis=-1).mean()

    oracle = minimize_scalar(nll, bounds=(-6, 6), method="bounded", options={"xatol": 1e-8}).x
    assert math.log(fit_temperature(lambda h: h, z, target, rows=rows)) == pytest.approx(oracle, abs=1e-4)


def test_without_a_minimum_the_better_end_is_returned():
    certain = torch.tensor([[1.0, 0.0]])
    assert fit_temperature(lambda h: h, certain, torch.tensor([0])) == 1e-3
    assert fit_temperature(lambda h: h, 1e-4 * certain, torch.tensor([0])) == 1e-3
    assert fit_temperature(lambda h: h, certain, torch.tensor([1])) == 1e3


def test_no_targets_and_scores_that_are_not_finite_are_refused():
    with pytest.raises(FewbitsError, match="no targets"):
        fit_temperature(lambda h: h, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    for bad in (math.nan, math.inf):
        with pytest.raises(FewbitsError, match="finite"):
            fit_temperature(lambda h: h, torch.tensor([[bad, 0.0]]), torch.tensor([0]))
