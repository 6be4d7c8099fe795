"""Searches with estimates of the normaliser, from the weights of a run, and the share of the beam's gain."""

from collections.abc import Iterator

import pytest
from tiny_sentences import configuration, made_up_language

from fewbits.evaluation.search import Stop
from fewbits.evaluation.translation import bleu
from fewbits.experiments.beam_normaliser import FRACTION_BITS, PENALTIES, BeamNormaliser, Search, compare, runs
from fewbits.experiments.transformer_translation import Architecture
from fewbits.study.profiles import Profile
from fewbits.study.records import Result
from fewbits.study.run import run


@pytest.fixture(autouse=True, scope="module")
def made_up() -> Iterator[None]:
    with made_up_language():
        yield


@pytest.fixture(scope="module", params=Architecture)
def result(request: pytest.FixtureRequest, made_up: None) -> Result:
    start = configuration(architecture=request.param)
    chosen = BeamNormaliser(start=start, test="test_b", beams=(1, 2, 5), late_beams=(2, 5), resamples=20)
    found = run(chosen, Profile.SMOKE, device="cpu", progress=False).result
    trained = run(start, Profile.SMOKE, device="cpu", progress=False).result
    assert found.texts["start"] == [trained.weights_sha256]
    for search, name in (
        ("exact_1_1_early", "greedy"),
        ("exact_5_1_early", "beam_softmax"),
        ("zero_5_1_early", "beam_max_shift"),
    ):
        assert found.metrics[f"bleu_{search}"] == pytest.approx(trained.metrics[f"test_b_{name}"], abs=1e-9)
    return found


def test_every_estimate_is_searched_in_every_way(result: Result) -> None:
    estimates = ["exact", "zero", "constant", *(f"top_bit_{f}" for f in FRACTION_BITS)]
    ways = [
        *((beam, penalty, "early") for beam in (1, 2, 5) for penalty in PENALTIES),
        *((beam, penalty, "late") for beam in (2, 5) for penalty in PENALTIES),
    ]
    names = {f"{b}_{beam}_{penalty:g}_{stop}" for b in estimates for beam, penalty, stop in ways}
    assert {name.removeprefix("bleu_") for name in result.metrics if name.startswith("bleu_")} == names
    assert result.metrics["sentences"] == 6


def test_what_theory_says_of_each_search(result: Result) -> None:
    metrics = result.metrics
    for estimate in ("exact", "zero", "constant", "top_bit_0", "top_bit_4"):
        for penalty in PENALTIES:  # a beam of one has no choice
            assert metrics[f"same_{estimate}_1_{penalty:g}_early"] == 1
    for penalty in PENALTIES:  # a beam over b = 0 that does not stop early is greedy search
        assert metrics[f"same_zero_2_{penalty:g}_late"] == metrics[f"same_zero_5_{penalty:g}_late"] == 1
    assert metrics["same_constant_2_1_late"] == metrics["same_constant_5_1_late"] == 1
    for name, low_high in result.arrays.items():
        if name.startswith("loss_exact"):
            assert low_high == [0, 0]


GREEDY = Search("exact", 1, 1.0, Stop.FIRST_FINISHED)
WIDE = GREEDY._replace(beam=5)


def test_the_share_of_the_gain_is_that_of_bleu() -> None:
    references = ["the cat sat on the mat .", "a dog ran to the old house .", "they are at home today ."] * 4
    worst = [line.replace(" the ", " a ") for line in references]
    middle = [line if place % 2 else worst[place] for place, line in enumerate(references)]
    searched = {GREEDY: worst, WIDE: references, WIDE._replace(estimate="zero"): middle}
    metrics, arrays = compare(searched, references, 50)
    low, between, high = (bleu(lines, references, resamples=2).score for lines in (worst, middle, references))
    assert metrics["share_zero_5_1_early"] == pytest.approx((between - low) / (high - low))
    assert metrics["share_exact_5_1_early"] == 1
    assert metrics["same_zero_5_1_early"] == sum(a == b for a, b in zip(middle, worst, strict=True)) / 12
    least, most = arrays["share_zero_5_1_early"]
    assert least < metrics["share_zero_5_1_early"] < most
    assert arrays["share_exact_5_1_early"] == [1, 1]
    assert "share_exact_1_1_early" not in metrics  # greedy search gains nothing over itself


def test_the_runs_of_each_profile() -> None:
    full = runs(Profile.FULL)
    assert len({(each.start.architecture, each.start.corpus) for each in full}) == len(full) == 4
    assert {each.start.seed for each in full} == {0}
    assert [each.start.architecture for each in runs(Profile.LAPTOP)] == list(Architecture)
    assert [each.start.architecture for each in runs(Profile.SMOKE)] == [Architecture.CONVS2S]
