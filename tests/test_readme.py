"""The README keeps its word: its Python runs, its commands are the ones that CI runs, its picture shows the records."""

import re

import pytest

from fewbits import project
from fewbits.study.figures import picture
from fewbits.study.records import full_records

README = (project.root() / "README.md").read_text(encoding="utf-8")


def test_the_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["fresh"].weight_hh_l0.unique().numel() == 3 * 4 - 3  # −α, 0, α of four gates, one zero between them


def test_ci_runs_the_two_commands():
    script = (project.root() / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("make book", "make test"):
        assert command in README
        assert re.search(rf"^{command}", script, re.MULTILINE)


def test_the_commands_that_it_names_exist():
    from click.testing import CliRunner

    from fewbits.cli import main

    for name in set(re.findall(r"fewbits (run|full|results|ledger|data list)\b", README)):
        assert CliRunner().invoke(main, [*name.split(), "--help"]).exit_code == 0


def test_the_picture_shows_the_records():
    found = [record for record in full_records("lstm_perplexity") if record.result.config["seed"] == 0]
    if not found:
        pytest.skip("there is no full record yet")
    assert (project.root() / "book" / "static" / "lstm_perplexity.svg").read_text(encoding="utf-8") == picture(found)
