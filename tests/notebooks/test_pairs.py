"""The study's notebooks: each source has its committed pair, and both follow the house's rules.

That the outputs are still what the code prints is checked by `pytest --nbval notebooks`, a part of `make test`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest

from fewbits.study.notebooks import parameters
from fewbits.study.profiles import Profile

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.md"))

every_source = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


def cells(pair: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pair.read_text(encoding="utf-8"))["cells"]
    return found


def test_no_pair_is_without_its_source() -> None:
    assert {pair.stem for pair in NOTEBOOKS.glob("*.ipynb")} == {source.stem for source in SOURCES}


@every_source
def test_source_and_pair_agree(source: Path) -> None:
    wanted = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in jupytext.read(source).cells]
    pair = cells(source.with_suffix(".ipynb"))
    found = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in pair]
    assert found == wanted, "run `make references`"


@every_source
def test_every_code_cell_was_executed_in_order(source: Path) -> None:
    """Nbval passes a cell without an execution count and outputs unchecked."""
    counts = [cell["execution_count"] for cell in cells(source.with_suffix(".ipynb")) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert counts


@every_source
def test_some_printed_output_is_strictly_checked(source: Path) -> None:
    """At least one cell shows numbers that nbval compares."""
    unchecked = {"nbval-ignore-output", "nbval-skip"}
    texts = [
        str(output.get("text", output.get("data")))
        for cell in cells(source.with_suffix(".ipynb"))
        if cell["cell_type"] == "code" and not unchecked & set(cell["metadata"].get("tags", []))
        for output in cell["outputs"]
    ]
    assert any(character.isdigit() for text in texts for character in text)


@every_source
def test_only_the_profile_has_a_default(source: Path) -> None:
    defaults = {name: field.default for name, field in parameters(source).model_fields.items()}
    assert defaults.pop("profile") == Profile.SMOKE
    assert set(defaults.values()) <= {None}


@pytest.mark.skipif(not SOURCES, reason="there is no notebook yet")
def test_sources_survive_the_way_to_a_pair_and_back() -> None:
    command = [sys.executable, "-m", "jupytext", "--test", "--to", "ipynb", *map(str, SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
