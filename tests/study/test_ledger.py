import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from fewbits import project
from fewbits.errors import FewbitsError
from fewbits.study import records, verdicts
from fewbits.study.claims import Certainty, documents
from fewbits.study.ledger import ledger, published
from fewbits.study.records import Record

PUBLISHED = project.root() / "data" / "published"
TABLES = sorted(path.stem for path in PUBLISHED.glob("*.csv"))


def store(arm: str, perplexities: list[float]) -> None:
    for seed, value in enumerate(perplexities):
        result = {
            "config": {"arm": arm, "corpus": "ptb", "cell": "lstm", "seed": seed},
            "metrics": {"test_perplexity": value}, "history": [], "weights_sha256": None,
        }  # fmt: skip
        where = {"commit": "c", "device": "d", "wall_seconds": 1, "peak_memory_bytes": 1, "versions": {}, "data": {}}
        record = {"experiment": "lstm_perplexity", "version": 1, "profile": "full", "name": f"{arm}-{seed}", "key": "k"}
        path = records.published_folder() / "lstm_perplexity" / f"{arm}-{seed}.json"
        records.save(Record.model_validate(record | {"result": result, "provenance": where}), path)


@pytest.fixture
def claims(checkout: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "data" / "claims", checkout / "data" / "claims")


def test_without_records_every_row_is_open(claims: None) -> None:
    table = ledger()
    assert list(table) == ["id", "document", "claim", "kind", "published", "ours", "verdict", "chapter"]
    assert len(table) == 62
    assert set(table["verdict"]) == {"open"}
    assert set(table["ours"]) == {""}
    assert not table.isna().any().any()


def test_s6_and_s7_follow_from_the_records_of_lstm_perplexity(claims: None) -> None:
    floats, binaries, ternaries = [110.0, 110.5, 111.0], [395.0, 401.0, 409.0], [103.0, 103.5, 104.2]
    for arm, values in (("float", floats), ("binary", binaries), ("ternary", ternaries)):
        store(arm, values)
    rows = ledger().set_index("id")
    assert rows.loc["S6", "verdict"] == "reproduced"  # 401.6 / 110.5 = 3.63; the document's ratio is 3.41
    assert rows.loc["S7", "verdict"] == "reproduced"
    low, high = stats.ttest_ind(ternaries, floats, equal_var=False).confidence_interval(0.95)
    assert f"ternary - float: -6.9333 [{low:.5g}, {high:.5g}], n = 3" in rows.loc["S7", "ours"]
    assert rows.loc["S7", "published"].startswith("ternary 114.63 perplexity [doc]; float 120.45 perplexity [doc]")
    assert set(rows.drop(index=["S6", "S7"])["verdict"]) == {"open"}


def test_s6_fails_on_its_ratio_and_s7_on_the_order(claims: None) -> None:
    for arm, values in (("float", [91.0, 91.5, 92.0]), ("binary", [8200.0, 8300.0, 8400.0]), ("ternary", [113.8] * 3)):
        store(arm, values)
    verdicts = ledger().set_index("id")["verdict"]
    assert (verdicts["S6"], verdicts["S7"]) == ("not reproduced", "not reproduced")


M1 = [
    "decode", "encode", "add", "sub", "mul", "div", "sqrt", "fma", "fma_rational", "comparisons", "modes", "binary16",
]  # fmt: skip
W2 = ["fixed_point", "shift", "stochastic"]


def verified(check: str, mismatches: int) -> None:
    result = {"config": {"check": check, "seed": 0}, "metrics": {"mismatches": mismatches}, "history": []}
    where = {"commit": "c", "device": "d", "wall_seconds": 1, "peak_memory_bytes": 1, "versions": {}, "data": {}}
    record = {"experiment": "float16", "version": 1, "profile": "full", "name": f"verify-{check}", "key": "k"}
    path = records.published_folder() / "float16" / f"{check}.json"
    parts = {"result": result | {"weights_sha256": None}, "provenance": where}
    records.save(Record.model_validate(record | parts), path)


@pytest.mark.parametrize(("claim", "checks"), [("M1", M1), ("W2", W2)])
def test_m1_and_w2_need_every_one_of_their_checks(claims: None, claim: str, checks: list[str]) -> None:
    (row,) = [each for document in documents() for each in document.claims if each.id == claim]

    def verdict() -> str:
        return str(verdicts.judge(row, records.full_records()).verdict)

    for check in checks:
        assert verdict() == "open"
        verified(check, 0)
    assert verdict() == "reproduced"
    assert f"{checks[-1]} 0, n = 1" in ledger().set_index("id").loc[claim, "ours"]
    for check in checks:
        verified(check, 1)
        assert verdict() == "not reproduced"
        verified(check, 0)


def test_the_checks_of_m1_and_w2_are_those_of_the_experiment() -> None:
    from fewbits.experiments.float16 import PRESETS, Check

    rows = {claim.id: claim for document in documents() for claim in document.claims}
    conditions = {row: [each.left.where["check"] for each in rows[row].comparisons] for row in ("M1", "W2")}
    assert conditions == {"M1": M1, "W2": W2}
    assert {*M1, *W2} == {*Check} - {*PRESETS} | {"binary16"}


def test_importing_the_ledger_does_not_import_torch() -> None:
    code = "import sys, fewbits.study.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_row_counts_are_those_of_the_readme() -> None:
    text = (PUBLISHED / "README.md").read_text()
    counts = {name: int(n) for name, n in re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text, re.MULTILINE)}
    assert counts == {name: len(published(name)) for name in TABLES}
    assert counts["recurrent_ptb"] == 48
    assert counts["alternating_post_training"] == 5 * 2 * 2 * 3


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_complete_and_plausible(name: str) -> None:
    table = published(name)
    assert not table.duplicated(["paper", "method", "cell", "corpus", "weight_bits", "activation_bits", "metric"]).any()
    assert (table["note"] != "")[table["value"].isna()].all()
    assert ((table["own_float_certainty"] != "") == table["own_float"].notna()).all()
    assert set(table["own_float_certainty"]) <= {"", *Certainty}
    for column in ("weight_bits", "activation_bits"):
        assert table[column].dropna().isin([1, 2, 3, 4, 32]).all()
    perplexities = table["metric"].isin(["test perplexity"])
    assert table["value"][perplexities].dropna().between(80, 4e6).all()
    assert table["own_float"].dropna().between(80, 14000).all()
    assert table["value"][table["metric"] == "test bits per character"].dropna().between(1.4, 7).all()


def number(table: pd.DataFrame, **where: object) -> tuple[float, float]:
    chosen = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(chosen) == 1, where
    return chosen["value"].item(), chosen["own_float"].item()


def test_numbers_of_the_papers() -> None:
    ptb = published("recurrent_ptb")
    assert number(ptb, method="alternating", cell="LSTM-300", weight_bits=2, activation_bits=2) == (95.8, 89.8)
    assert number(ptb, method="balanced", cell="GRU-300", weight_bits=4) == (116, 100)
    assert number(ptb, method="BinaryConnect, no norm", cell="LSTM-650") == (1244.2, 87.6)
    assert number(ptb, method="TernaryConnect + layer norm", cell="LSTM-650")[0] == 82.5
    assert number(ptb, method="HitNet", cell="GRU") == (113.5, 102.7)
    assert set(ptb[ptb["method"] == "HitNet"]["own_float_certainty"]) == {"M"}
    sizes = published("recurrent_sizes")
    assert number(sizes, method="TernaryConnect + separate batch norm", cell="LSTM-650") == (2298, 13213)
    once = published("alternating_post_training")
    assert number(once, method="uniform", cell="GRU-300", weight_bits=2, metric="test perplexity") == (3161906.6, 92.5)
    assert number(once, method="alternating", cell="LSTM-300", weight_bits=4, metric="relative MSE")[0] == 0.019
    again = published("alternating_retrained")
    assert number(again, method="alternating", cell="LSTM", corpus="Text8, words", weight_bits=3) == (98.8, 101.1)
    assert number(again, method="refined greedy", cell="GRU-512", activation_bits=3, weight_bits=2) == (114.1, 106.7)
    characters = published("recurrent_characters")
    assert number(characters, method="TernaryConnect, no norm", corpus="PTB, characters")[0] == 5.84
    assert number(characters, method="BinaryConnect + layer norm", corpus="Text8, characters")[0] == 1.47
    assert number(published("recurrent_other"), metric="compression with minor loss")[0] == 31.6


def test_the_seminars_numbers_are_the_same_everywhere() -> None:
    rows = {claim.id: claim for document in documents() for claim in document.claims}
    numbers = rows["S6"].published + rows["S7"].published
    claimed = {each.name: each.value for each in numbers if each.source == "seminar"}
    for table in (published("seminar"), published("recurrent_ptb")):
        assert number(table, paper="Seminar 2019", method="binary, best") == (claimed["binary"], claimed["float"])
        ternary = number(table, paper="Seminar 2019", method="ternary T = 0.5, best")
        assert ternary == (claimed["ternary"], claimed["float"])
    assert number(published("seminar"), method="float")[0] == claimed["float"] == 120.45


def test_every_source_is_explained_in_the_readme() -> None:
    text = (PUBLISHED / "README.md").read_text().split("## Sources")[1]
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    named = {key.strip() for cell in first_cells for key in cell.split(",")} | set(re.findall(r"`([^`/]+)`", text))
    used = {source for name in TABLES for row in published(name)["source"] for source in row.split("; ")}
    used |= {each.source for document in documents() for claim in document.claims for each in claim.published}
    assert used <= named


def test_an_unknown_table_offers_near_names() -> None:
    with pytest.raises(FewbitsError, match=r"'recurent_ptb'. Perhaps you mean: recurrent_ptb"):
        published("recurent_ptb")


def test_a_wrong_table_is_refused_by_name(checkout: Path) -> None:
    folder = checkout / "data" / "published"
    folder.mkdir()
    good = (PUBLISHED / "seminar.csv").read_text()
    (folder / "seminar.csv").write_text(good)
    assert len(published("seminar")) == 6
    for old, new in (("120.45", "12o.45"), (",doc,", ",dok,"), ("certainty", "mark"), (good, "")):
        wrong = good.replace(old, new)
        (folder / "seminar.csv").write_text(wrong)
        with pytest.raises(FewbitsError, match=r"seminar\.csv"):
            published("seminar")
