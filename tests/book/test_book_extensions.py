"""The local Sphinx extensions: what a page gets from the study when the book is built."""

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
import study_frames
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace
from study_chapters import read_by, results_csv
from study_records import record_text
from study_tables import classic_script

from fewbits.errors import FewbitsError
from fewbits.study import records
from fewbits.study.profiles import Profile
from fewbits.study.run import EXPERIMENTS


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a checkout with one recorded run: float, perplexity 110.25."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.yaml").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("FEWBITS_ROOT", str(tmp_path))
    result = records.Result(config={"seed": 1}, metrics={"test_perplexity": 110.25}, history=[], weights_sha256=None)
    provenance = records.Provenance(
        commit="0123456789abcdef+changes",
        device="a processor",
        wall_seconds=90,
        peak_memory_bytes=2**21,
        versions={"torch": "2"},
        data={},
    )
    record = records.Record(
        experiment="lstm", version=1, profile=Profile.FULL, name="float", key="k", result=result, provenance=provenance
    )
    records.save(record, tmp_path / "data" / "results" / "lstm" / "float.json")
    return tmp_path


def built(folder: Path, text: str) -> tuple[str, str]:
    """Build a page with ``text``, again if it was built before, and return its HTML and the warnings."""
    page = folder / "index.md"
    if not page.is_file():
        page.write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    warnings = io.StringIO()
    settings = {"extensions": ["myst_parser", "study_tables", "study_records", "study_images"], "html_theme": "basic"}
    out = folder / "_build" / "html"
    with docutils_namespace():
        Sphinx(folder, None, out, folder / "_build" / "doctrees", "html", settings, None, warnings).build()
    return (out / "index.html").read_text(encoding="utf-8"), warnings.getvalue()


def test_a_recorded_number_is_printed_as_asked(checkout: Path) -> None:
    assert record_text("lstm/float:test_perplexity:.1f") == "110.2"
    assert record_text("lstm/float:test_perplexity") == "110.25"


def test_a_run_that_is_not_recorded_is_open(checkout: Path) -> None:
    assert record_text("lstm/binary:test_perplexity:.1f") == "open"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("lstm/float:test_perplexty:.1f", "did you mean test_perplexity"),
        ("lstm/float:test_perplexity:.1x", "cannot be printed"),
        ("float", "EXPERIMENT/NAME:METRIC:FORMAT"),
    ],
)
def test_a_wrong_reference_is_an_error_that_helps(checkout: Path, reference: str, says: str) -> None:
    with pytest.raises(FewbitsError, match=says):
        record_text(reference)
    _, warnings = built(checkout, f"{{record}}`{reference}`")
    assert says in warnings


def test_the_role_prints_the_number_into_the_page(checkout: Path) -> None:
    page, warnings = built(checkout, "It is {record}`lstm/float:test_perplexity:.2f`, not {record}`lstm/x:y`.")
    assert 'It is <span class="record">110.25</span>' in page
    assert 'not <span class="record record-open">open</span>' in page
    assert warnings == ""


def test_a_page_shows_a_new_record_although_the_page_did_not_change(checkout: Path) -> None:
    text = "{record}`lstm/float:test_perplexity:.0f`"
    assert "110" in built(checkout, text)[0]
    path = checkout / "data" / "results" / "lstm" / "float.json"
    path.write_text(path.read_text(encoding="utf-8").replace("110.25", "99.0"), encoding="utf-8")
    assert "99" in built(checkout, text)[0]


def test_a_table_shows_its_rows_and_marks_what_the_script_needs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.DataFrame({"id": ["M1"], "verdict": ["not reproduced"], "size": [2422712], "gap": [float("nan")]})
    monkeypatch.setitem(study_frames.FRAMES, "ledger", lambda: rows)
    page, warnings = built(checkout, "```{study-table} ledger\n:sortable: verdict\n```")
    assert re.findall(r"<td[^>]*><p>(.*?)</p></td>", page) == [
        "M1", '<span class="verdict verdict-not-reproduced">not reproduced</span>', "2,422,712", "–",
    ]  # fmt: skip
    assert re.findall(r'<th class="head filter"><p>(.*?)</p>', page) == ["verdict"]
    assert re.search(r'<table class="[^"]*\bsortable\b', page)
    assert "vendor/datatables.js" in page
    assert warnings == ""


def test_a_chapter_in_a_table_is_a_link_once_it_exists(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "book" / "chapters").mkdir(parents=True)
    (checkout / "book" / "chapters" / "lstm.md").write_text("---\norphan: true\n---\n\nNo title", encoding="utf-8")
    monkeypatch.setitem(study_frames.FRAMES, "ledger", lambda: pd.DataFrame({"chapter": ["lstm", "planned"]}))
    page, warnings = built(checkout, "```{study-table} ledger\n```")
    assert re.findall(r'href="(book/chapters/[^"]*)"', page) == ["book/chapters/lstm.html"]
    assert "<p>planned</p>" in page
    assert warnings == ""


def test_a_table_without_rows_says_so_and_loads_no_script(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(study_frames.FRAMES, "provenance", lambda: pd.DataFrame(columns=["run"]))
    page, _ = built(checkout, "```{study-table} provenance\n:empty: No run yet.\n```")
    assert "No run yet." in page
    assert "<table" not in page
    assert "datatables" not in page


def test_an_unknown_table_is_an_error_that_names_the_tables(checkout: Path) -> None:
    assert "there are: data, judging, ledger, machine" in built(checkout, "```{study-table} ledgr\n```")[1]


def test_the_results_table_and_the_csv_hold_the_records(checkout: Path) -> None:
    row = study_frames.frame("results:lstm").iloc[0]
    assert (row["run"], row["test_perplexity"]) == ("float", 110.25)
    assert study_frames.frame("results:none").empty
    made = study_frames.provenance().iloc[0]
    assert (made["minutes"], made["peak memory"], made["versions"]) == (1.5, "2 MiB", "torch 2")
    assert made["commit"] == "0123456789ab+changes"
    (line,) = csv.DictReader(io.StringIO(results_csv("lstm")))
    assert line["result.metrics.test_perplexity"] == "110.25"
    assert line["result.config.seed"] == "1"
    assert list(csv.reader(io.StringIO(results_csv("none")))) == [["experiment", "profile", "name", "key"]]
    assert len(list(csv.DictReader(io.StringIO(results_csv("none", "lstm", "lstm"))))) == 2


def test_a_chapter_offers_the_records_that_its_source_reads() -> None:
    source = 'a = records.full_records("time")\nb = full_records("lstm")\nprint(len(full_records("time")), "other")'
    assert read_by(source) == ["time", "lstm"]
    chapters = (Path(__file__).parents[2] / "notebooks").glob("*.md")
    assert {name for chapter in chapters for name in read_by(chapter.read_text("utf-8"))} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_results_of_every_experiment_are_on_a_page(experiment: str) -> None:
    page = Path(__file__).parents[2] / "book" / "environment.md"
    assert f"{{study-table}} results:{experiment}\n" in page.read_text(encoding="utf-8")


def test_an_image_without_alt_text_is_reported_and_gets_its_size(checkout: Path) -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"/>'
    (checkout / "dot.svg").write_text(drawing, encoding="utf-8")
    page, warnings = built(checkout, "![](dot.svg)\n\n![a dot](dot.svg)")
    assert warnings.count("no alt text") == 1
    assert re.search(r'<img alt="a dot"[^>]*height="20"[^>]*width="30"|<img alt="a dot"[^>]*width: 30', page)


def test_a_module_becomes_a_script_for_pages_opened_from_a_folder() -> None:
    script = classic_script("var a=1,b=2;export{a as first,b as default};\n// notice", "Name")
    assert script == 'window.Name=(function(){"use strict";var a=1,b=2;return{"first":a,"default":b};})();\n// notice'
    with pytest.raises(ExtensionError, match="no export"):
        classic_script("var a=1;", "Name")


def test_every_quantizer_is_in_the_table_of_what_there_is() -> None:
    table = study_frames.support().set_index("name")
    assert {"TWN", "Binary", "Ternary", "Uniform", "PerRow", "PerGate"} <= set(table.index)
    assert "bits" in table.loc["Uniform", "options"]
    assert table["what it does"].str.len().min() > 10


def test_every_claim_of_the_ledger_says_how_it_is_judged() -> None:
    table = study_frames.judging()
    assert table["id"].tolist() == study_frames.ledger_table()["id"].tolist()
    assert table[["what is compared", "near enough"]].map(len).min().min() > 10
    assert table["seeds"].min() >= 1
