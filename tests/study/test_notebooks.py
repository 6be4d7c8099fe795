import errno
import json
from pathlib import Path

import papermill
import pytest

from fewbits.errors import FewbitsError
from fewbits.study.notebooks import checked, execute, find


def printed(notebook: Path) -> str:
    """Everything that the cells of an executed notebook printed, read from the JSON itself."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def test_parameters_reach_the_cells_in_their_types(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = checkout / "out" / "toy.ipynb"
    values = {"profile": "laptop", "seeds": "3", "rate": 2, "bits": "[1, 2]", "resume": "true", "note": "7"}
    executed = execute("toy", values, out, progress=False)
    assert printed(out) == "laptop 3 2.0 [1, 2] True '7'\n"
    assert executed.notebook == out
    assert executed.parameters == {**values, "seeds": 3, "bits": [1, 2], "resume": True}
    assert 0 < executed.seconds < 60
    assert [path.name for path in out.parent.iterdir()] == ["toy.ipynb"]
    assert str(checkout) not in out.read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seeds", "abc", "int"),
        ("seeds", "3.5", "int"),
        ("seeds", True, "int"),
        ("seeds", 3.0, "int"),
        ("rate", "fast", "float"),
        ("rate", "1e999", "float"),
        ("bits", "[1, 'two']", "list[int]"),
        ("resume", 1, "bool"),
        ("note", 7, "str"),
        ("profile", "lapto", "smoke, laptop or full"),
    ],
)
def test_ill_typed_values_are_refused(checkout: Path, name: str, value: object, expected: str) -> None:
    with pytest.raises(FewbitsError) as error:
        execute("toy", {name: value}, checkout / "toy.ipynb")
    assert name in str(error.value)
    assert repr(value) in str(error.value)
    assert expected in str(error.value)
    assert not (checkout / "toy.ipynb").exists()


def test_an_unknown_name_is_refused_with_near_matches(checkout: Path) -> None:
    with pytest.raises(FewbitsError, match=r"no parameter 'sedes'. Did you mean seeds\?"):
        checked(find("toy"), {"sedes": 3, "profile": "smoke"})
    with pytest.raises(FewbitsError, match="There is: profile, seeds, rate, bits, resume, note"):
        checked(find("toy"), {"zzz": 3})


@pytest.mark.parametrize("name", ["toy", "toy.md", "toy.ipynb", "notebooks/toy.md", "notebooks/toy.ipynb"])
def test_every_way_to_name_a_notebook_finds_its_source(checkout: Path, name: str) -> None:
    (checkout / "notebooks" / "toy.ipynb").write_text("{}")
    assert find(name).resolve() == checkout / "notebooks" / "toy.md"


@pytest.mark.parametrize("name", ["tyo", "notebooks/tyo.md", "tyo.ipynb"])
def test_an_unknown_notebook_names_near_matches(checkout: Path, name: str) -> None:
    with pytest.raises(FewbitsError, match=r"Did you mean toy\?"):
        find(name)


def test_a_folder_that_does_not_exist_is_not_ignored(checkout: Path) -> None:
    with pytest.raises(FewbitsError, match="no notebook"):
        find("elsewhere/toy.md")


@pytest.mark.parametrize(
    "line", ["seeds = 3", "seeds: int", "seeds: Tensor = 3", "seeds: int = len([])", "seeds: int ="]
)
def test_a_parameters_cell_of_anything_else_is_refused(checkout: Path, line: str) -> None:
    source = checkout / "notebooks" / "toy.md"
    source.write_text(source.read_text().replace("seeds: int | None = None", line))
    with pytest.raises(FewbitsError, match=r"parameters cell of .*toy\.md cannot be read"):
        checked(source, {})


def test_a_file_that_is_no_notebook_is_named(checkout: Path) -> None:
    source = checkout / "notebooks" / "toy.md"
    source.write_text(source.read_text().replace("  display_name: Python 3\n", ""))
    with pytest.raises(FewbitsError, match=r"toy\.md is no notebook: 'display_name' is a required property"):
        execute("toy", {}, checkout / "toy.ipynb")


def test_a_failing_cell_leaves_the_notebook_and_ends_the_message(checkout: Path, failing: Path) -> None:
    out = checkout / "out" / "failing.ipynb"
    with pytest.raises(FewbitsError) as error:
        execute(failing, {"seeds": 5}, out, progress=False)
    assert str(out) in str(error.value)
    assert str(error.value).endswith("\nKeyError: 'no such thing'")
    assert printed(out).startswith("smoke 5")
    assert "no such thing" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["failing.ipynb"]


def test_a_dead_kernel_is_explained(checkout: Path, failing: Path) -> None:
    failing.write_text(failing.read_text().replace("raise KeyError", "import os; os.kill(os.getpid(), 9)  # "))
    with pytest.raises(FewbitsError, match="process died, most likely for want of memory"):
        execute(failing, {}, checkout / "failing.ipynb", progress=False)
    assert printed(checkout / "failing.ipynb").startswith("smoke")


def test_the_committed_pair_is_never_overwritten(checkout: Path) -> None:
    with pytest.raises(FewbitsError, match="committed pair"):
        execute("toy", {}, checkout / "notebooks" / "toy.ipynb")
    assert not (checkout / "notebooks" / "toy.ipynb").exists()


@pytest.mark.parametrize("where", ["os.replace", "papermill.execute_notebook"])
def test_a_full_disk_keeps_the_old_notebook(checkout: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    out = checkout / "out" / "toy.ipynb"
    out.parent.mkdir()
    out.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert callable(papermill.execute_notebook)
    monkeypatch.setattr(where, full)
    with pytest.raises(FewbitsError, match="No space left on device"):
        execute("toy", {}, out, progress=False)
    assert out.read_text() == "old"
    assert [path.name for path in out.parent.iterdir()] == ["toy.ipynb"]
