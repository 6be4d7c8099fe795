"""Every Python block in the book's pages runs."""

import re
from pathlib import Path

import pytest

from fewbits import project

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {path.name: BLOCK.findall(path.read_text(encoding="utf-8")) for path in (project.root() / "book").glob("*.md")}


def test_the_blocks_are_found() -> None:
    assert len(PAGES["quantise_your_own_model.md"]) >= 5


@pytest.mark.parametrize("page", [name for name, blocks in PAGES.items() if blocks])
def test_the_blocks_of_a_page_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    for number, block in enumerate(PAGES[page], 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
