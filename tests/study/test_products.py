"""Which library computes float32 products, and that it does so in float32."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from fewbits.study import products
from fewbits.study.products import large_products
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context, run


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


FIRST = setting()  # before any test ran


@pytest.mark.parametrize("shape", [(700, 200, 10_000), (33, 1_000, 65), (1, 7, 3)])
def test_products_stay_as_near_to_those_of_numpy_in_float64(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    random = torch.Generator().manual_seed(1)
    left, right = torch.randn(rows, inner, generator=random), torch.randn(columns, inner, generator=random)
    exact = left.numpy().astype(np.float64) @ right.numpy().astype(np.float64).T
    with large_products():
        found = left @ right.T
    assert np.abs(found.numpy() - exact).max() < 3e-6 * np.abs(exact).max()


def test_the_setting_is_put_back() -> None:
    with large_products(False):
        assert setting() == FIRST
    with pytest.raises(ZeroDivisionError), large_products():
        raise ZeroDivisionError
    assert setting() == FIRST


def test_a_processor_that_would_round_keeps_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for stays, expected in ((True, "bf16"), (False, setting())):
        monkeypatch.setattr(products, "_stays_float32", lambda stays=stays: stays)
        with large_products():
            assert setting() == expected


class Large(Configuration):
    experiment: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    large: bool

    @property
    def name(self) -> str:
        return "toy"

    @property
    def large_products(self) -> bool:
        return self.large

    def data_hashes(self) -> dict[str, str]:
        return {}

    def compute(self, context: Context) -> Computed:
        return Computed({"setting": setting()}, [], {}, {})


def test_a_run_says_whether_its_products_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_stays_float32", lambda: True)
    found = [run(Large(large=large), Profile.SMOKE).result.metrics["setting"] for large in (True, False)]
    assert found == ["bf16", setting()]
