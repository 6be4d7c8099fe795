"""Sorted weights against NumPy."""

import numpy as np
import pytest
import torch

from fewbits.quantizers.sorting import ascending


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_rows_are_sorted_each_by_itself_and_the_weights_stay_as_they_are(dtype):
    rows = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[1:3, ::7] = torch.tensor([0.0, -0.0], dtype=dtype)[:, None]
    before, found = rows.clone(), ascending(rows)
    assert found.dtype == dtype
    assert np.array_equal(found.double().numpy(), np.sort(rows.double().numpy(), axis=1))
    assert not (found.signbit() & (found == 0)).any()
    assert torch.equal(rows, before)
    assert ascending(rows[:, :0]).shape == (5, 0)
