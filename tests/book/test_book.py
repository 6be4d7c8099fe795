"""The built book in a real browser."""

import pkgutil
from pathlib import Path

import pytest
from browsing import broken_links, opened, page_problems, served
from playwright.sync_api import Browser, Page

import fewbits
from fewbits.study import ledger

pytestmark = pytest.mark.browser


def pages(book: Path) -> list[str]:
    found = (path.relative_to(book).as_posix() for path in sorted(book.rglob("*.html")) if "_static" not in path.parts)
    return [page for page in found if page != "index.html"]  # index.html only leads to the first page


@pytest.mark.parametrize(("width", "theme"), [(1300, "light"), (390, "dark")])
def test_every_page_opens_without_a_problem(book: Path, browser: Browser, width: int, theme: str) -> None:
    with served(book) as address:
        found = {page: page_problems(browser, f"{address}/{page}", width, theme) for page in pages(book)}
    assert len(found) > 10
    assert not {page: problems for page, problems in found.items() if problems}


def test_the_book_opens_at_its_first_page(book: Path, browser: Browser) -> None:
    with served(book) as address, opened(browser, f"{address}/index.html") as (page, _):
        page.wait_for_url("**/book/start_here.html")


def test_every_internal_link_leads_somewhere(book: Path) -> None:
    assert broken_links(book) == []


def test_the_book_follows_the_theme(book: Path, browser: Browser) -> None:
    shades = {}
    with served(book) as address:
        for theme in ("light", "dark"):
            with opened(browser, f"{address}/book/start_here.html", theme=theme) as (page, _):
                color = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
                shades[theme] = sum(color[:3])
    assert shades["dark"] < 150 < 600 < shades["light"]


def test_the_reference_shows_every_module(book: Path) -> None:
    page = (book / "book" / "api.html").read_text(encoding="utf-8")
    names = [module.name for module in pkgutil.walk_packages(fewbits.__path__, "fewbits.")]
    assert len(names) > 20
    assert [name for name in names if f'id="module-{name}"' not in page and not name.endswith("__main__")] == []


def test_there_is_one_search_box(book: Path, browser: Browser) -> None:
    with served(book) as address, opened(browser, f"{address}/book/start_here.html") as (page, _):
        assert page.locator(".search-button-field:visible, .search-button:visible").count() == 1


def test_every_chapter_offers_its_downloads(book: Path) -> None:
    for chapter in (book / "book" / "chapters").glob("*.html"):
        files = {path.suffix for path in (book / "_downloads").rglob(f"{chapter.stem}*")}
        assert files == {".ipynb", ".md", ".csv"}


def sort_by_id(page: Page, direction: str) -> None:
    page.locator("table.sortable th", has_text="id").first.click()
    page.locator(f"table.sortable th[aria-sort='{direction}']", has_text="id").wait_for()


def ids(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("table.sortable tbody tr td:first-child").all_text_contents()]


def test_the_ledger_sorts_and_filters_also_when_opened_from_its_folder(book: Path, browser: Browser) -> None:
    rows = ledger.ledger()
    with opened(browser, (book / "book" / "ledger.html").as_uri()) as (page, found):
        assert ids(page) == list(rows["id"])

        in_order = sorted(rows["id"], key=lambda name: (name[0], int(name[1:])))
        sort_by_id(page, "ascending")
        assert ids(page) == in_order
        sort_by_id(page, "descending")
        assert ids(page) == in_order[::-1]

        kind = rows["kind"].iloc[0]
        page.get_by_label("Filter by kind").select_option(kind)
        assert set(ids(page)) == set(rows.loc[rows["kind"] == kind, "id"]) != set(rows["id"])
        page.get_by_label("Filter by kind").select_option("")

        page.get_by_label("Search:").fill(rows["claim"].iloc[5])
        assert rows["id"].iloc[5] in ids(page)
        assert len(ids(page)) < len(rows)
    assert found == []
