import json
from pathlib import Path

import pytest

from fewbits.errors import FewbitsError
from fewbits.study.references import refresh

FIGURE = "\n```{code-cell} ipython3\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\n```\n"
PROGRESS = """
```{code-cell} ipython3
import sys, time
from tqdm import tqdm
for _ in tqdm(range(3), leave=False, desc="x" * (time.time_ns() % 97)):
    pass
print("done")
```
"""


def test_a_second_refresh_gives_the_same_bytes_and_nothing_of_the_machine(checkout: Path) -> None:
    source = checkout / "notebooks" / "toy.md"
    source.write_text(source.read_text() + FIGURE + PROGRESS)
    assert refresh(source) is True
    pair = source.with_suffix(".ipynb")
    first = pair.read_bytes()
    assert refresh(source) is False
    assert pair.read_bytes() == first
    notebook = json.loads(first)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in notebook["cells"]] == ["toy-00", "toy-01", "toy-02", "toy-03", "toy-04"]
    assert [cell["execution_count"] for cell in code] == [1, 2, 3, 4]
    assert code[1]["outputs"][0]["text"] == ["smoke None None None None None\n"]
    assert [output["text"] for output in code[3]["outputs"]] == [["done\n"]]
    assert list(code[2]["outputs"][0]["data"]) == ["text/plain"]
    assert set(notebook["metadata"]) <= {"kernelspec", "jupytext"}


def test_a_failing_notebook_leaves_its_pair(failing: Path) -> None:
    pair = failing.with_suffix(".ipynb")
    pair.write_text("old")
    with pytest.raises(FewbitsError, match=r"no such thing'$"):
        refresh(failing)
    assert pair.read_text() == "old"
