"""Fixtures of the book's tests: the browser, and a built book."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

from fewbits import project

EXTENSIONS = Path(__file__).parents[2] / "book" / "extensions"
sys.path.insert(0, str(EXTENSIONS))

FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
QUIET = "--disable-component-update --disable-sync"
SOURCES = (
    *("_config.yml", "_toc.yml", "book", "benchmarks", "data", "jupytext.toml", "notebooks", "src", "workflow"),
    "tests/quantizers",  # a table of the book says what tests what
)
BUILT = ("chapters", "vendor", "__pycache__")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give a headless Chromium, or skip and say how to get one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium found: install one (Debian: apt-get install chromium) to test the book in a browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=f"{FLAGS} {QUIET}".split())
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the built book: the checkout's own if it is up to date, else one built at ``smoke``."""
    root = project.root()
    if up_to_date(root):
        return root / "_build" / "html"
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns(*BUILT))
        elif (root / name).is_file():
            shutil.copy(root / name, copy / name)
    command = [sys.executable, "-m", "fewbits", "book", "--profile", "smoke"]
    done = subprocess.run(
        command, cwd=copy, env=os.environ | {"FEWBITS_ROOT": str(copy)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return copy / "_build" / "html"


def up_to_date(root: Path) -> bool:
    """Tell whether every page of the table of contents is built, and after the last change of any source."""
    html = root / "_build" / "html"
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    if not all((html / f"{page}.html").is_file() for page in pages):
        return False
    files = (file for name in SOURCES for file in [root / name, *(root / name).rglob("*")] if file.is_file())
    sources = (file for file in files if not set(BUILT) & set(file.relative_to(root).parts))
    return max(file.stat().st_mtime for file in sources) < (html / "index.html").stat().st_mtime
