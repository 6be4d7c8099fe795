"""The expected best against every possible draw."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.evaluation.tuning import expected_best


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_it_is_the_mean_over_all_draws(values):
    found = expected_best(values)
    assert len(found) == len(values)
    for n, each in enumerate(found, 1):
        draws = [min(draw) for draw in product(values, repeat=n)]
        assert each == pytest.approx(sum(draws) / len(draws), abs=1e-9)


def test_one_that_diverged_is_never_hidden():
    assert expected_best([float("inf"), 1.0, 2.0])[0] == float("inf")


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_without_numbers_there_is_no_best(values):
    with pytest.raises(FewbitsError, match="one try at least"):
        expected_best(values)
