"""The checks of the book must see a broken page: each is shown one."""

from pathlib import Path

import pytest
from browsing import broken_links, page_problems, served
from playwright.sync_api import Browser

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
GOOD = f'<article><p id="top">Text, and <code>$x$</code>.</p><img src="{PIXEL}" alt="a dot" width="9"></article>'

BROKEN = {
    "mathematics is not typeset": '<span class="math">\\(x\\)</span>',
    "raw TeX: The": "<p>The scale $\\alpha$ of a row.</p>",
    "raw TeX: \\frac": "<p>\\frac{1}{2}</p>",
    "has no alt text": f'<article><img src="{PIXEL}" width="9"></article>',
    "has no size": f'<article><img src="{PIXEL}" alt="a dot"></article>',
    "does not load": '<article><img src="gone.png" alt="a plot" width="9"></article>',
    "404": '<script src="gone.js"></script>',
    "external request": '<script src="https://cdn.example.org/math.js"></script>',
    "external request: https://fonts": '<link rel="stylesheet" href="https://fonts.example.org/a.css">',
    "scrolls sideways": '<div style="width: 800px">wide</div>',
    "console": "<script>console.error('something is wrong')</script>",
    "script error": "<script>nothing.there()</script>",
}


def write(folder: Path, body: str, name: str = "page.html") -> None:
    head = '<head><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,"></head>'
    text = f'<!doctype html><html lang="en">{head}<body>{body}</body></html>'
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.browser
def test_a_sound_page_has_no_problem(tmp_path: Path, browser: Browser) -> None:
    write(tmp_path, GOOD)
    with served(tmp_path) as address:
        assert page_problems(browser, f"{address}/page.html", 390) == []


@pytest.mark.browser
@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_page_is_caught(tmp_path: Path, browser: Browser, problem: str) -> None:
    write(tmp_path, GOOD + BROKEN[problem])
    with served(tmp_path) as address:
        found = page_problems(browser, f"{address}/page.html", 390)
    assert any(problem in line for line in found), found


def test_links_to_no_file_and_to_no_place_are_caught(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "there.html")
    links = ("there.html", "there.html#top", "#here", "https://example.org/x", "gone.html", "there.html#gone", "#gone")
    write(tmp_path, '<p id="here"></p>' + "".join(f'<a href="{link}">x</a>' for link in links))
    assert broken_links(tmp_path) == [
        "page.html: #gone leads to no place in that page",
        "page.html: gone.html leads to no file",
        "page.html: there.html#gone leads to no place in that page",
    ]
