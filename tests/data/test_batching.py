import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import contiguous
from fewbits.errors import FewbitsError


@given(st.integers(2, 60), st.integers(1, 6))
def test_columns_are_equal_stretches_of_the_text_in_order(tokens: int, batch_size: int) -> None:
    if tokens < 2 * batch_size:
        return
    text = list(range(100, 100 + tokens))
    steps = tokens // batch_size
    batched = contiguous(torch.tensor(text, dtype=torch.int32), batch_size)
    assert batched.dtype == torch.int32
    assert batched.t().tolist() == [text[column * steps : (column + 1) * steps] for column in range(batch_size)]


@pytest.mark.parametrize("batch_size", [0, -1, 6])
def test_a_batch_size_that_leaves_nothing_to_predict_is_refused(batch_size: int) -> None:
    with pytest.raises(FewbitsError, match="from 1 to 5"):
        contiguous(torch.arange(11), batch_size)
