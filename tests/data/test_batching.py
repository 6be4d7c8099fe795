from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.data import bptt_windows, contiguous
from fewbits.errors import FewbitsError


@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 9))
def test_every_next_token_is_predicted_once_and_state_is_carried(tokens: int, batch_size: int, length: int) -> None:
    if tokens < 2 * batch_size:
        return
    text = list(range(100, 100 + tokens))
    steps = tokens // batch_size
    batched = contiguous(torch.tensor(text, dtype=torch.int32), batch_size)
    assert batched.dtype == torch.int32

    seen: list[list[tuple[int, int]]] = [[] for _ in range(batch_size)]
    for inputs, targets in bptt_windows(batched, length):
        assert 1 <= len(inputs) <= length
        for row in range(len(inputs)):
            for column in range(batch_size):
                seen[column].append((int(inputs[row, column]), int(targets[row, column])))

    for column in range(batch_size):
        stretch = text[column * steps : (column + 1) * steps]
        assert seen[column] == list(pairwise(stretch))


def test_all_windows_but_the_last_are_full() -> None:
    sizes = [len(inputs) for inputs, _ in bptt_windows(contiguous(torch.arange(50), 2), 10)]
    assert sizes == [10, 10, 4]


@pytest.mark.parametrize("batch_size", [0, -1, 6])
def test_a_batch_size_that_leaves_nothing_to_predict_is_refused(batch_size: int) -> None:
    with pytest.raises(FewbitsError, match="from 1 to 5"):
        contiguous(torch.arange(11), batch_size)


def test_a_window_without_steps_is_refused() -> None:
    with pytest.raises(FewbitsError, match="1 or more"):
        list(bptt_windows(torch.zeros(4, 1), 0))
