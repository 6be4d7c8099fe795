import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fewbits import project
from fewbits.errors import FewbitsError
from fewbits.study.claims import Kind, documents
from fewbits.study.verdicts import Verdict

FOLDER = project.root() / "data" / "claims"
IDS = [f"{letter}{n}" for letter, count in zip("MQSEW", (12, 11, 18, 12, 9), strict=True) for n in range(1, count + 1)]
CHAPTERS = {
    "lstm_perplexity", "float16", "quantizers", "max_shift_theory", "fnnlm_softmax_time", "seq2seq_translation",
    "transformer_translation", "click_ratio", None,
}  # fmt: skip


def scalars(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from scalars(each)
    else:
        yield node


def test_all_62_rows_are_there_in_order() -> None:
    assert [claim.id for document in documents() for claim in document.claims] == IDS
    assert len(IDS) == 62


def test_every_row_says_what_is_claimed_compared_and_near_enough() -> None:
    for claim in (claim for document in documents() for claim in document.claims):
        for text in (claim.title, claim.statement, claim.compares, claim.near_enough):
            assert len(text) > 10, claim.id
            assert text == " ".join(text.split()), claim.id
        assert claim.chapter in CHAPTERS, claim.id
        if claim.kind in (Kind.VALUE, Kind.RATIO):
            assert claim.published or claim.id in ("M7", "W1", "E10"), claim.id  # those three give no number


def test_no_verdict_is_ever_typed() -> None:
    for path in sorted(FOLDER.glob("*.yaml")):
        for text in map(str, scalars(yaml.safe_load(path.read_text()))):
            assert text not in [*Verdict, "verdict"], (path, text)
            assert not re.search(r"reproduc", text, re.IGNORECASE), (path, text)


def test_the_documents_own_numbers() -> None:
    rows = {claim.id: claim for document in documents() for claim in document.claims}
    numbers = {key: {number.name: number.value for number in claim.published} for key, claim in rows.items()}
    assert numbers["S6"]["binary"] == 410.13
    assert numbers["S6"]["float"] == numbers["S7"]["float"] == 120.45
    assert numbers["S7"]["ternary"] == 114.63
    assert numbers["M8"]["softmax"] / numbers["M8"]["max-shift"] == pytest.approx(1.80, abs=0.005)
    assert numbers["M9"]["max-shift"] - numbers["M9"]["softmax"] == pytest.approx(0.21)
    assert str(rows["S6"].published[1]) == "binary 410.13 perplexity [doc]"
    rows10 = list(numbers["M10"].values())
    percents = [100 * after / before for before, after in zip(rows10[::3], rows10[1::3], strict=True)]
    assert percents == pytest.approx(rows10[2::3], abs=5e-4)
    assert rows10[2::3] == [98.163, 96.498, 98.279, 98.118]


Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def broken(checkout: Path) -> Callable[[Change], str]:
    """Read the claims after a change of the seminar's file, and return the error."""

    def read(change: Change) -> str:
        shutil.copytree(FOLDER, checkout / "data" / "claims", dirs_exist_ok=True)
        path = checkout / "data" / "claims" / "seminar.yaml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(FewbitsError) as caught:
            documents()
        return str(caught.value)

    return read


S6 = IDS.index("S6") - IDS.index("S1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["claims"][S6].update(verdict="reproduced"), "verdict"),
        (lambda file: file["claims"][S6].update(kind="proof"), "kind"),
        (lambda file: file["claims"][S6].update(id="X1"), "pattern"),
        (lambda file: file["claims"][S6].update(id="S5"), "S5 more than once"),
        (lambda file: file["claims"][S6].update(kind="value"), "kind value needs a comparison 'within'"),
        (lambda file: file["claims"][S6].pop("near_enough"), "near_enough"),
        (lambda file: file["claims"][S6]["published"][0].update(certainty="C"), "certainty"),
        (lambda file: file["claims"][S6]["published"][0].update(name="binary"), "same name"),
        (lambda file: file["claims"][S6]["comparisons"][1].update(target=["binary", "flaot"]), "flaot"),
        (lambda file: file["claims"][S6]["comparisons"][1].update(tolerance=0.5), "tolerance"),
        (lambda file: file["claims"][S6]["comparisons"][0].update(operator="greater"), "operator"),
        (lambda file: file["claims"][S6]["comparisons"][0]["left"].update(profile="smoke"), "profile"),
    ],
)
def test_a_wrong_claims_file_is_refused_by_name(broken: Callable[[Change], str], change: Change, message: str) -> None:
    error = broken(change)
    assert message in error
    assert "seminar.yaml" in error or "data/claims" in error


def test_a_missing_or_garbled_file_is_named(checkout: Path) -> None:
    with pytest.raises(FewbitsError, match=r"cannot read .*max_shift\.yaml"):
        documents()
    shutil.copytree(FOLDER, checkout / "data" / "claims")
    (checkout / "data" / "claims" / "wage.yaml").write_text("claims: [")
    with pytest.raises(FewbitsError, match=r"wage\.yaml is no valid claims file"):
        documents()
