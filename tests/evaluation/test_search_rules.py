"""Words that beam search may not write, against brute force over all that is left."""

import math
from typing import Any

import pytest
from search_tables import EOS, LENGTH, WORDS, hypotheses, search, sequence, tables, total

from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, Stop

WIDE = WORDS**LENGTH


@pytest.mark.parametrize(
    "rules",
    [
        {"excluded": (3,)},
        {"excluded": (0, 2)},
        {"min_length": 1},
        {"min_length": 3},
        {"force_end": True},
        {"excluded": (2,), "min_length": 2, "force_end": True},
        {"min_length": 4, "force_end": True},
    ],
)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_what_is_allowed(rules: dict[str, Any], penalty: float) -> None:
    beam = Beam(WIDE, LENGTH, penalty, Stop.LENGTH, n_best=5, **rules)

    def allowed(line: tuple[int, ...]) -> bool:
        ended = line[-1] == EOS
        return (
            not set(beam.excluded) & set(line)
            and (not ended or len(line) > beam.min_length)
            and (ended or not beam.force_end)
        )

    scores = tables(5, count=9).log_softmax(-1)
    for table, best in zip(scores, search(scores, beam), strict=True):
        # a softmax is normalised over all words, those that are ruled out too
        left = [line for line in hypotheses(WORDS, LENGTH) if allowed(line)]
        wanted = sorted(left, key=lambda line: -total(table, line) / len(line) ** penalty)[:5]
        assert [sequence(one) for one in best] == wanted
        assert [one.total for one in best] == pytest.approx([total(table, line) for line in wanted], rel=1e-12)


def test_a_narrow_beam_does_not_lose_places_to_words_that_are_ruled_out() -> None:
    scores = tables(6, count=9).log_softmax(-1)
    without = scores.clone()
    without[..., 2] = -math.inf
    for width in (1, 2, 3):
        ruled = search(scores, Beam(width, LENGTH, stop=Stop.NO_BETTER, excluded=(2,)))
        assert ruled == search(without, Beam(width, LENGTH, stop=Stop.NO_BETTER))


@pytest.mark.parametrize("fewest", [-1, 5, 9])
def test_a_length_that_leaves_no_place_for_the_end_is_refused(fewest: int) -> None:
    with pytest.raises(FewbitsError, match="fewest words before the end"):
        Beam(max_length=5, min_length=fewest)
