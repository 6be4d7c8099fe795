"""What stands beside a figure, and how figures look."""

import re
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from fewbits.study import figures
from fewbits.study.profiles import Profile
from fewbits.study.records import Provenance, Record, Result


def record(key: str = "0123456789abcdef", device: str = "CPU", **config: Any) -> Record:
    history = [{"epoch": 1, "valid_loss": 0.0}, {"epoch": 2, "valid_loss": 1.0}]
    return Record(
        experiment="toy",
        version=1,
        profile=Profile.LAPTOP,
        name="it",
        key=key,
        result=Result(
            config={"corpus": "ptb", "seed": 0, "arm": "float"} | config,
            metrics={},
            history=history,
            weights_sha256=None,
        ),
        provenance=Provenance(
            commit="c", device=device, wall_seconds=1, peak_memory_bytes=1, versions={}, data={"p": "h"}
        ),
    )


class Page(HTMLParser):
    """The tags and the text that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_note_names_data_profile_seeds_machine_and_keys() -> None:
    rows = [record(seed=1), record(key="fedcba9876543210", device="GPU", corpus="news"), record(seed=1)]
    page = Page(figures.provenance(iter(rows)).data)
    assert page.text == (
        "Data: news, ptb · profile: laptop · seeds: 0, 1 · machine: CPU, GPU · records: 01234567, fedcba98, 01234567"
    )
    assert page.tags == ["p", "code", "code", "code"]


def test_the_note_leaves_out_what_no_record_has() -> None:
    page = Page(figures.provenance([record(corpus=None, seed=None)]).data)
    assert page.text == "Profile: laptop · machine: CPU · records: 01234567"


def test_a_run_that_starts_from_another_one_names_its_data() -> None:
    started = record()
    started.result.config.clear()
    started.result.config["start"] = {"corpus": "multi30k", "seed": 7}
    page = Page(figures.provenance([started]).data)
    assert "data: multi30k" in page.text.lower()
    assert "seeds: 7" in page.text


@pytest.mark.parametrize(
    "hostile",
    [
        {"device": '<script>alert("x")</script>'},
        {"corpus": "<b>&amp;</b>"},
        {"seed": "<i>"},
        {"key": "<script>"},
    ],
)
def test_the_note_shows_markup_as_text(hostile: dict[str, str]) -> None:
    page = Page(figures.provenance([record(**hostile)]).data)
    assert page.tags == ["p", "code"]
    assert next(iter(hostile.values())) in page.text


def test_the_note_of_nothing_says_that_it_is_open() -> None:
    assert "No stored record yet" in figures.provenance([]).data


def test_the_style_needs_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with mpl.rc_context():
        figures.style()
        assert mpl.rcParams["savefig.facecolor"] == "white"
        assert mpl.rcParams["figure.dpi"] >= 100


def test_curves_are_perplexities_one_colour_an_arm() -> None:
    axis = Figure().subplots()
    figures.curves(axis, [record(), record(arm="binary"), record(seed=1)], "A title")
    drawn = [(line.get_xydata().tolist(), line.get_color()) for line in axis.lines]
    points = [[1.0, 1.0], [2.0, pytest.approx(2.718281828)]]
    assert drawn == [(points, figures.COLOURS[arm]) for arm in ("float", "binary", "float")]
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["float", "binary"]
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)


def test_curves_of_nothing_say_so() -> None:
    axis = Figure().subplots()
    figures.curves(axis, [], "A title")
    assert [text.get_text() for text in axis.texts] == ["no record yet"]
    assert axis.get_legend() is None


def test_the_picture_is_the_same_bytes_again() -> None:
    first, second = figures.picture([record()]), figures.picture([record()])
    assert first == second
    assert first != figures.picture([record(arm="binary")])
    assert re.search(r"<svg\b", first)
