"""BLEU against sacreBLEU's program and against sums by hand."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewbits.errors import FewbitsError
from fewbits.evaluation.translation import SEED, bleu, paired_bootstrap, resampled_bleu

REFERENCES = [
    "He is a good doctor.", "I'm not your enemy!", "They are very big apples.", "we are all tired of it",
    "I am 20.5 years old.", "she isn't afraid of dogs, is she?", "You're in my way.", "The cat sat on the mat.",
    "Are they from Paris?", "I am here",
]  # fmt: skip
GOOD = [
    "He is a good doctor.", "I'm not your friend!", "They are big apples.", "we are all tired of it",
    "I am 20.5 years old.", "she is not afraid of dogs, is she?", "You are in my way.", "The cat sat on the mat.",
    "Are they from Rome?", "I am",
]  # fmt: skip
POOR = [
    "He is doctor.", "I'm not!", "They very apples.", "we are tired of it", "I am old.", "", "You're way my in.",
    "the cat sat on the mat.", "from Paris?", "I am here here here here",
]  # fmt: skip


def program(tmp_path: Path, *systems: list[str], options: tuple[str, ...]) -> list[dict]:
    """The JSON of sacreBLEU's command line."""
    files = []
    for number, lines in enumerate([REFERENCES, *systems]):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(files[0]), "-i", *map(str, files[1:]), "-w", "12", *options]
    environment = {name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found = json.loads(output)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("system", [GOOD, POOR])
def test_bleu_is_that_of_the_program(system: list[str], tmp_path: Path) -> None:
    (expected,) = program(tmp_path, system, options=("--confidence", "-f", "json"))
    found = bleu(system, REFERENCES)
    assert found.score == pytest.approx(expected["score"], abs=1e-11)
    assert found.signature == expected["signature"]
    mean, half = expected["confidence_mean"], expected["confidence_var"]
    assert found.interval == pytest.approx((mean - half, mean + half), abs=1e-10)


def test_the_paired_test_is_that_of_the_program(tmp_path: Path) -> None:
    options = ("--paired-bs", "--paired-bs-n", "400", "-f", "json")
    first, second = program(tmp_path, GOOD, POOR, options=options)
    found = paired_bootstrap(GOOD, POOR, REFERENCES, resamples=400)
    scores = [one["BLEU"]["score"] for one in (first, second)]
    assert found.difference == pytest.approx(scores[1] - scores[0], abs=1e-10)
    assert found.difference < -30
    assert found.p_value == pytest.approx(second["BLEU"]["p_value"], abs=1e-11)
    assert "bs:400|seed:12345" in found.signature


def test_a_tiny_case_by_hand() -> None:
    # n-grams of both sentences that match, "the" counted once, of all; no 4-gram does: 1 / (2 · their number)
    hypotheses, references = ["the the cat sat down", "a b c"], ["the cat sat up here now", "a b d"]
    precisions = [5 / 8, 3 / 6, 1 / 4, 1 / (2 * 2)]
    expected = 100 * math.exp(1 - 9 / 8) * math.prod(precisions) ** 0.25
    assert bleu(hypotheses, references).score == pytest.approx(expected, rel=1e-12)


def test_the_interval_is_that_of_resampled_corpora() -> None:
    found = bleu(GOOD, REFERENCES, resamples=300)
    rows = np.random.default_rng(12345).choice(len(GOOD), size=(300, len(GOOD)), replace=True)
    scores = sorted(bleu([GOOD[i] for i in row], [REFERENCES[i] for i in row], resamples=2).score for row in rows)
    half = (scores[300 - 300 // 40 - 1] - scores[300 // 40]) / 2
    mean = sum(scores) / 300
    assert found.interval == pytest.approx((mean - half, mean + half), rel=1e-6)  # sacreBLEU sums counts in float32
    assert found.interval[0] < found.score < found.interval[1]


def test_case_counts_and_order_counts() -> None:
    assert bleu(["The cat sat on the mat."], ["the cat sat on the mat."]).score < 100
    assert bleu(["cat the on sat the mat"], ["the cat sat on the mat"]).score < 30
    assert bleu(GOOD, GOOD).score == pytest.approx(100, rel=1e-12)
    assert bleu(["x y z w"], ["a b c d"]).score == 0


def test_two_systems_that_say_the_same_do_not_differ() -> None:
    found = paired_bootstrap(GOOD, list(GOOD), REFERENCES)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_the_seed_is_fixed_and_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = bleu(GOOD, REFERENCES), paired_bootstrap(GOOD, POOR, REFERENCES)
    assert "SACREBLEU_SEED" not in os.environ
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    assert (bleu(GOOD, REFERENCES), paired_bootstrap(GOOD, POOR, REFERENCES)) == plain
    assert os.environ["SACREBLEU_SEED"] == "7"


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], ["a", "b"], "has 1 lines and the references have 2"),
        ([], [], "there are no sentences"),
        (["a", "b"], ["a", " "], "reference 2 is empty"),
        ("a", ["a"], "hypotheses is one string"),
        (["a"], "a", "references is one string"),
    ],
)
def test_what_has_no_bleu_is_an_error(hypotheses: list[str], references: list[str], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        bleu(hypotheses, references)
    with pytest.raises(FewbitsError, match=message.replace("hypotheses is", "hypotheses_a is")):
        paired_bootstrap(hypotheses, hypotheses, references)


def test_one_system_with_another_number_of_lines_is_named() -> None:
    with pytest.raises(FewbitsError, match="hypotheses_b has 9 lines and the references have 10"):
        paired_bootstrap(GOOD, POOR[:-1], REFERENCES)
    with pytest.raises(FewbitsError, match="1 resamples"):
        bleu(GOOD, REFERENCES, resamples=1)


def test_resamples_are_the_corpora_of_the_drawn_sentences() -> None:
    found = resampled_bleu({"good": GOOD, ("poor", 2): POOR}, REFERENCES, resamples=30)
    drawn = np.random.default_rng(SEED).integers(10, size=(30, 10))
    for name, system in {"good": GOOD, ("poor", 2): POOR}.items():
        assert found[name].score == bleu(system, REFERENCES, resamples=2).score
        wanted = [
            bleu([system[place] for place in row], [REFERENCES[place] for place in row], resamples=2).score
            for row in drawn
        ]
        assert found[name].resamples.tolist() == wanted
    with pytest.raises(FewbitsError, match="system short has 9 lines"):
        resampled_bleu({"short": GOOD[:9]}, REFERENCES)
