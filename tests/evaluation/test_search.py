"""Search over small tables against brute force over all sequences."""

import math
from typing import Any

import pytest
import torch
from search_tables import (
    EOS,
    LENGTH,
    SEARCH,
    WORDS,
    Prefixes,
    Table,
    greedily,
    max_shift,
    number_of,
    ranked,
    search,
    sequence,
    tables,
    total,
)
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, Hypothesis, Stop, beam_search, greedy

ALL = WORDS**LENGTH  # a beam that never has to leave anything out


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("stop", [Stop.NO_BETTER, Stop.LENGTH])
def test_a_wide_beam_finds_the_best_sequences_of_all(penalty: float, stop: Stop) -> None:
    scores = tables(1, count=12).log_softmax(-1)
    found = search(scores, Beam(ALL, LENGTH, penalty, stop, n_best=7))
    for table, best in zip(scores, found, strict=True):
        expected = ranked(table, penalty)[:7]
        assert [sequence(one) for one in best] == [words for _, words in expected]
        assert [one.score(penalty) for one in best] == pytest.approx([score for score, _ in expected], rel=1e-12)


def test_scores_above_zero_are_searched_to_the_longest_length() -> None:
    scores = tables(2, count=8) + 1.0
    found = search(scores, Beam(ALL, LENGTH, 1.0, Stop.LENGTH))
    assert [sequence(best) for (best,) in found] == [ranked(table, 1.0)[0][1] for table in scores]


def by_hand(table: Tensor, beam: Beam) -> list[tuple[tuple[int, ...], float]]:
    """Beam search in plain Python on lists, one sentence; the rules as the docstring has them."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []

    def score(one: tuple[tuple[int, ...], float]) -> float:
        return one[1] / len(one[0]) ** beam.length_penalty

    for length in range(1, beam.max_length + 1):
        last = length == beam.max_length
        longer = [((*p, w), t + table[number_of(p, table.shape[-1]), w].item()) for p, t in live for w in range(WORDS)]
        best = sorted(longer, key=lambda one: -one[1])[: 2 * beam.beam]
        ended = [one for one in best[: beam.beam] if last or one[0][-1] == EOS]
        finished += ended[: beam.beam - len(finished)] if beam.stop is Stop.FIRST_FINISHED else ended
        finished = sorted(finished, key=lambda one: -score(one))[: beam.beam]
        live = [one for one in best if one[0][-1] != EOS][: beam.beam]
        if beam.stop is Stop.FIRST_FINISHED and len(finished) == beam.beam:
            break
        if beam.stop is Stop.NO_BETTER and len(finished) >= beam.n_best:
            reachable = [live[0][1] / n**beam.length_penalty for n in range(length + 1, beam.max_length + 1)]
            if all(score(finished[beam.n_best - 1]) >= one for one in reachable):
                break
    return finished[: beam.n_best]


@pytest.mark.parametrize("stop", Stop)
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.7])
def test_a_narrow_beam_is_that_of_plain_lists(stop: Stop, width: int, penalty: float) -> None:
    scores = tables(3, count=25).log_softmax(-1)
    beam = Beam(width, LENGTH, penalty, stop, n_best=width)
    for table, found in zip(scores, search(scores, beam), strict=True):
        expected = by_hand(table, beam)
        assert [sequence(one) for one in found] == [words for words, _ in expected]
        assert [one.total for one in found] == [score for _, score in expected]  # both add float64, in order


def test_a_beam_of_one_is_greedy() -> None:
    scores = tables(4, count=200).log_softmax(-1)
    expected = greedily(scores)
    assert [best for (best,) in search(scores, Beam(1, LENGTH))] == expected
    lengths = {one.length for one in expected}
    assert len(lengths) == LENGTH  # from one word to the longest
    assert {one.ended for one in expected} == {True, False}


def test_greedy_takes_the_best_word_and_the_lowest_of_equal_ones() -> None:
    scores = tables(5, count=50).round()  # whole numbers, many equal
    for table, found in zip(scores, greedily(scores), strict=True):
        words: tuple[int, ...] = ()
        while len(words) < LENGTH and EOS not in words:
            row = table[number_of(words)].tolist()
            words += (row.index(max(row)),)
        assert sequence(found) == words
        assert found.total == total(table, words)


def test_one_search_a_sentence_is_one_search_for_all() -> None:
    scores = tables(6, count=40).log_softmax(-1)
    for stop in Stop:
        beam = Beam(3, LENGTH, 1.0, stop, n_best=3)
        together = search(scores, beam)
        assert together == [search(scores[row : row + 1], beam)[0] for row in range(len(scores))]
    assert greedily(scores) == [greedily(scores[row : row + 1])[0] for row in range(len(scores))]


# --- when it stops -------------------------------------------------------------------------------------------------


def late_winner() -> Tensor:
    """A table in which two poor hypotheses end at once and a good one ends at the third word."""
    table = torch.full((1, number_of((WORDS - 1,) * LENGTH) + 1, WORDS), -9.0)
    table[0, number_of(()), [2, EOS, 3]] = torch.tensor([-0.1, -2.0, -3.0])
    table[0, number_of((2,)), [2, EOS]] = torch.tensor([-0.1, -2.0])
    table[0, number_of((2, 2)), EOS] = -0.1
    return table


def test_the_first_finished_may_not_be_the_best() -> None:
    (early,) = search(late_winner(), Beam(2, LENGTH, 1.0, Stop.FIRST_FINISHED))[0]
    (late,) = search(late_winner(), Beam(2, LENGTH, 1.0, Stop.NO_BETTER))[0]
    assert sequence(early) == (2, EOS)
    assert early.total == pytest.approx(-2.1, rel=1e-6)
    assert sequence(late) == (2, 2, EOS)
    assert late.total == pytest.approx(-0.3, rel=1e-6)
    assert late.score(1.0) == pytest.approx(-0.1, rel=1e-6)


def steps(scores: Tensor, stop: Stop, penalty: float = 1.0) -> int:
    decoder = Prefixes()
    beam_search(decoder, Table(scores), [0], beam=Beam(2, LENGTH, penalty, stop), **SEARCH)
    return len(decoder.rows)


def test_a_search_takes_as_many_steps_as_its_rule_says() -> None:
    assert steps(late_winner(), Stop.FIRST_FINISHED) == 2
    assert steps(late_winner(), Stop.LENGTH) == LENGTH
    # After step 3 the best total is −0.3 and the best live one −9.2: −0.3/3 ≥ −9.2/5.
    assert steps(late_winner(), Stop.NO_BETTER) == 3
    # With α = 4 it is still ahead: −0.3/3⁴ = −0.0037, −9.2/5⁴ = −0.0147.
    assert steps(late_winner(), Stop.NO_BETTER, penalty=4.0) == 3
    # With α = 8 the live one could win, so the search goes on: −0.3/3⁸ = −4.6e-5, −9.2/5⁸ = −2.4e-5.
    assert steps(late_winner(), Stop.NO_BETTER, penalty=8.0) > 3


def test_finished_sentences_leave_the_batch() -> None:
    scores = torch.cat([late_winner(), late_winner()])
    scores[1, 0, EOS], scores[1, 0, 2] = 0.0, -8.0  # the second is done after its first word
    decoder = Prefixes()
    beam_search(decoder, Table(scores), [0, 1], beam=Beam(2, LENGTH, 1.0, Stop.NO_BETTER), **SEARCH)
    assert decoder.rows == [2, 2, 2]  # both with one row, then the first alone with two


# --- max-shift -----------------------------------------------------------------------------------------------------

COUNT = 300


@pytest.mark.parametrize("stop", [Stop.NO_BETTER, Stop.LENGTH])
@pytest.mark.parametrize(("b", "penalty"), [(0.0, 0.0), (0.0, 0.6), (0.0, 1.0), (0.0, 2.5), (0.25, 1.0), (4.0, 1.0)])
def test_a_constant_shift_makes_beam_search_greedy(stop: Stop, b: float, penalty: float) -> None:
    scores = max_shift(tables(7, COUNT), b)
    expected = [sequence(one) for one in greedily(scores)]
    found = search(scores, Beam(5, LENGTH, penalty, stop))
    assert [sequence(best) for (best,) in found] == expected
    for table, words in zip(scores[:40], expected, strict=False):  # the best of all, by brute force
        assert ranked(table, penalty)[0][1] == words


def test_early_stopping_breaks_the_theorem() -> None:
    scores = max_shift(tables(7, COUNT))
    expected = [sequence(one) for one in greedily(scores)]
    found = search(scores, Beam(3, LENGTH, 1.0, Stop.FIRST_FINISHED))
    same = sum(sequence(best) == words for (best,), words in zip(found, expected, strict=True))
    assert COUNT // 2 < same < COUNT


@pytest.mark.parametrize(("b", "penalty"), [(1.0, 0.0), (1.0, 0.5), (1.0, 2.0)])
def test_another_length_penalty_makes_a_constant_a_length_bonus(b: float, penalty: float) -> None:
    scores = max_shift(tables(7, 60), b)
    best = [sequence(one[0]) for one in search(scores, Beam(ALL, LENGTH, penalty, Stop.LENGTH))]
    pairs = [(len(found), len(sequence(one))) for found, one in zip(best, greedily(scores), strict=True)]
    assert sum(found != expected for found, expected in pairs) > 6
    assert all(found <= expected if penalty < 1 else found >= expected for found, expected in pairs)


def test_a_shift_that_depends_on_the_context_can_make_beam_search_win() -> None:
    scores = tables(7, COUNT).log_softmax(-1)
    expected = [sequence(one) for one in greedily(scores)]
    found = search(scores, Beam(5, LENGTH, 1.0, Stop.NO_BETTER))
    assert sum(sequence(best) != words for (best,), words in zip(found, expected, strict=True)) > COUNT // 10


def test_shared_maxima_leave_greedy_among_the_best() -> None:
    scores, reached = max_shift(tables(8, COUNT).round()), 0
    for one, (best,) in zip(greedily(scores), search(scores, Beam(2, LENGTH, 1.0, Stop.NO_BETTER)), strict=True):
        assert best.total == one.total == 0
        assert best.length <= one.length
        reached += sequence(best) == sequence(one)
    assert COUNT // 2 < reached < COUNT


# --- ties, infinities, sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [3, 40, 3000])
def test_all_equal_scores_take_the_lowest_words(words: int) -> None:
    class Flat(Table):
        def scores(self, hidden: Tensor) -> Tensor:
            return torch.zeros(len(hidden), words)

    flat = Flat(torch.zeros(1, 1, words))
    (found,) = beam_search(Prefixes(words), flat, [0], beam=Beam(3, 3, 1.0, Stop.LENGTH, n_best=3), **SEARCH)
    # <eos> is the second best word of each step: one hypothesis ends at each length, the rest is ahead of it by rank
    assert [sequence(one) for one in found] == [(1,), (0, 1), (0, 0, 0)]


def test_ties_go_to_the_hypothesis_ahead_then_to_the_lower_word() -> None:
    scores = tables(9, count=60).mul(2).round().div(4).sub(3)
    for stop in Stop:
        beam = Beam(3, LENGTH, 1.0, stop, n_best=3)
        for table, found in zip(scores, search(scores, beam), strict=True):
            # Python's sort is stable: equal ones keep the order of parents, then of words
            assert [sequence(one) for one in found] == [words for words, _ in by_hand(table, beam)]


def test_words_that_are_ruled_out_are_never_taken() -> None:
    scores = tables(10, count=30).log_softmax(-1)
    scores[:, :, 2] = -math.inf
    found = search(scores, Beam(ALL, LENGTH, 1.0, Stop.NO_BETTER, n_best=50))
    for table, best in zip(scores, found, strict=True):
        possible = [words for score, words in ranked(table, 1.0) if score > -math.inf]
        assert [sequence(one) for one in best] == possible[:50]


def test_a_vocabulary_of_eos_alone_gives_empty_translations() -> None:
    decoder, scores = Prefixes(1), torch.full((2, 30, 1), -0.5)
    (found,) = beam_search(decoder, Table(scores), [0], sos=0, eos=0, beam=Beam(5, LENGTH, n_best=5))
    assert found == [Hypothesis((), True, -0.5)]
    assert greedy(decoder, Table(scores), [0], sos=0, eos=0, max_length=3) == found


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_scores_without_a_best_word_are_an_error(wrong: float) -> None:
    scores = tables(11, count=2).log_softmax(-1)
    scores[1] = wrong
    with pytest.raises(FewbitsError, match="NaN or infinite"):
        greedily(scores)
    with pytest.raises(FewbitsError, match=r"NaN or infinite|all words of sentence 1 are ruled out"):
        search(scores, Beam(2, LENGTH))


@pytest.mark.parametrize(
    "wrong", [{"beam": 0}, {"max_length": 0}, {"n_best": 6}, {"n_best": 0}, {"length_penalty": -0.1}]
)
def test_settings_that_cannot_search_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FewbitsError, match="cannot search"):
        Beam(**wrong)
    with pytest.raises(FewbitsError, match="1 or more"):
        greedily(tables(1), length=0)
