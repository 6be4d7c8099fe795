"""What a reader must not meet in the book. Each check returns the problems it found, in words; none is a pass."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, Page, Route

IN_PAGE = """async () => {
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  const found = [];
  const brief = (text) => text.trim().slice(0, 60);
  const literal = "pre, code, script, style, select, mjx-container, .math, .sig";
  for (const math of document.querySelectorAll(".math"))
    if (!math.querySelector("mjx-container")) found.push("mathematics is not typeset: " + brief(math.textContent));
  for (const error of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    found.push("mathematics has an error: " + brief(error.textContent));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    if (texts.currentNode.parentElement.closest(literal)) continue;
    const text = texts.currentNode.textContent;
    if (/\\\\[a-zA-Z]+[{_^]|\\\\[(\\[]|\\$[^$\\s][^$]*\\$/.test(text)) found.push("raw TeX: " + brief(text));
  }
  for (const image of document.images) {
    const name = "image " + image.getAttribute("src").slice(-40);
    if (!image.alt.trim() || /\\.(png|svg|jpe?g)$/.test(image.alt)) found.push(name + " has no alt text");
    if (!image.naturalWidth) found.push(name + " does not load");
    const sized = image.hasAttribute("width") || image.style.width;
    if (image.closest("article") && !sized) found.push(name + " has no size");
  }
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth)
    found.push(`the page scrolls sideways: ${page.scrollWidth} px of content on ${page.clientWidth} px`);
  return found;
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not report what it serves."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` and give its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1300, theme: str = "light") -> Iterator[tuple[Page, list[str]]]:
    """Open ``url`` as a new reader, and give the page with the list that collects its problems."""
    found: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")

    def stay_inside(route: Route) -> None:
        outside = urlsplit(route.request.url).netloc != urlsplit(url).netloc
        if outside:
            found.append(f"external request: {route.request.url}")
        (route.abort if outside else route.continue_)()

    context.route("**/*", stay_inside)
    page = context.new_page()
    page.on("console", lambda message: found.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"script error: {error}"))
    page.on("requestfailed", lambda request: found.append(f"failed request: {request.url}"))
    page.on("response", lambda answer: found.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    page.goto(url, wait_until="load")
    yield page, found
    context.close()


def page_problems(browser: Browser, url: str, width: int = 1300, theme: str = "light") -> list[str]:
    """Return what is wrong with the page at ``url`` on a screen of ``width`` pixels in ``theme``."""
    with opened(browser, url, width, theme) as (page, found):
        return [*page.evaluate(IN_PAGE), *found]


class Anchors(HTMLParser):
    """The links and the ids of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the link or the id of one element."""
        named = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := named.get(key))}
        if tag == "a" and (link := named.get("href")):
            self.links.add(link)


def broken_links(folder: Path) -> list[str]:
    """Return the links inside ``folder`` that lead to no file, or to no place in the file."""
    pages = {path.resolve(): Anchors(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, anchors in pages.items():
        for link in sorted(anchors.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{path.name}: {link} leads to no file")
            elif place and target in pages and place not in pages[target].ids:
                found.append(f"{path.name}: {link} leads to no place in that page")
    return found
