import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from fewbits import __version__
from fewbits.cli import main
from fewbits.errors import FewbitsError
from fewbits.study import notebooks, records
from fewbits.study.profiles import Profile
from fewbits.study.records import Provenance, Record, Result


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: object) -> None:
    """Put a module of the given functions in the place of one that has tests of its own."""
    module = types.ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []

    def execute(notebook: Path, parameters: dict[str, object], out: Path) -> notebooks.Executed:
        calls.append((notebook, parameters, out))
        return notebooks.Executed(out, parameters, 61.4)

    monkeypatch.setattr(notebooks, "execute", execute)
    (tmp_path / "toy.md").write_text("# Toy")
    monkeypatch.chdir(tmp_path)
    return calls


def test_run_passes_parameters_profile_and_folder(executions: list[tuple[object, ...]]) -> None:
    options = ["-p", "seeds=3", "-p", "note=a=b", "--profile", "laptop", "--out", "there"]
    result = CliRunner().invoke(main, ["run", "toy.md", *options])
    assert result.exit_code == 0, result.output
    expected = {"seeds": "3", "note": "a=b", "profile": "laptop"}
    assert executions == [(Path("toy.md"), expected, Path("there/toy.ipynb"))]
    assert result.output == "there/toy.ipynb  (61 s)\n"


@pytest.mark.parametrize(
    ("options", "word"), [(["-p", "seeds"], "name=value"), (["-p", "=3"], "name=value"), (["--profile", "x"], "laptop")]
)
def test_run_refuses_what_it_cannot_read(executions: list[tuple[object, ...]], options: list[str], word: str) -> None:
    result = CliRunner().invoke(main, ["run", "toy.md", *options])
    assert (result.exit_code, executions) == (2, [])
    assert word in result.output


def test_an_error_for_people_has_no_traceback() -> None:
    command = [sys.executable, "-m", "fewbits", "run", "no_such_notebook"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("fewbits: there is no notebook 'no_such_notebook'.")
    assert "Traceback" not in done.stderr


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    heavy = {"torch", "pandas", "papermill", "pydantic", "matplotlib", "scipy"}
    code = f"import sys, fewbits.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_data_commands_call_the_data_room(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"name": ["news", "ptb"], "tokens": [12, 7]})

    class Report:
        def __init__(self, name: str) -> None:
            if name not in {"news", "ptb"}:
                raise FewbitsError(f"there is no data set {name!r}")
            self.name, self.ok = name, name == "news"

        def __str__(self) -> str:
            return f"{self.name}: {'verified' if self.ok else 'damaged'}"

    stand_in(monkeypatch, "fewbits.data", data_table=lambda: table, get=lambda name: f"got {name}", check=Report)
    assert CliRunner().invoke(main, ["data", "list"]).output.split() == ["name", "tokens", "news", "12", "ptb", "7"]
    assert CliRunner().invoke(main, ["data", "get", "news", "ptb"]).output == "got news\ngot ptb\n"
    intact = CliRunner().invoke(main, ["data", "check", "news"])
    assert (intact.exit_code, intact.output) == (0, "news: verified\n")
    damaged = CliRunner().invoke(main, ["data", "check"])
    assert (damaged.exit_code, damaged.stdout) == (1, "news: verified\nptb: damaged\n")
    assert damaged.stderr.startswith("fewbits: not in order: ptb.")
    unknown = CliRunner().invoke(main, ["data", "check", "nws"])
    assert (unknown.exit_code, unknown.stderr) == (1, "fewbits: there is no data set 'nws'\n")


def test_full_passes_device_budget_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def run_full(*values: object) -> list[str]:
        calls.append(values)
        return ["a", "b"]

    stand_in(monkeypatch, "fewbits.study.run", run_full=run_full)
    assert CliRunner().invoke(main, ["full"]).output.startswith("2 new records")
    assert CliRunner().invoke(main, ["full", "--device", "cuda", "--budget", "30", "--only", "a"]).exit_code == 0
    assert calls == [("auto", None, None), ("cuda", 30.0, "a")]
    assert CliRunner().invoke(main, ["full", "--budget", "0"]).exit_code == 2


def test_a_dry_run_of_full_shows_what_is_missing_and_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*values: object) -> list[object]:
        assert values == ("cpu", None)
        return [types.SimpleNamespace(experiment="toy", name=f"toy-seed{seed}") for seed in (0, 2)]

    stand_in(monkeypatch, "fewbits.study.run", missing=missing)  # and no run_full
    shown = CliRunner().invoke(main, ["full", "--device", "cpu", "--dry-run"]).output
    assert shown.split() == ["experiment", "run", "toy", "toy-seed0", "toy", "toy-seed2"]


class Checked:
    """A check and its record, as the command sees them."""

    def __init__(self, name: str, mismatches: int = 0, proven: bool = True) -> None:
        self.check, self.name, self.proven = name, f"verify-{name}", proven
        first = "0x3c00: got 0x0001, expected 0x0000" if mismatches else None
        metrics = {"cases": 4294967296, "mismatches": mismatches, "first_mismatch": first}
        self.result = types.SimpleNamespace(metrics=metrics)
        self.provenance = types.SimpleNamespace(wall_seconds=61.4)

    def proves(self, record: object) -> bool:
        return self.proven


def verification(
    monkeypatch: pytest.MonkeyPatch, checks: list[Checked], kept: tuple[str, ...] = (), done: int | None = None
) -> list[object]:
    calls: list[object] = []

    def runs(profile: Profile) -> list[Checked]:
        calls.append(profile)
        return checks

    def run_each(chosen: list[Checked], profile: Profile, *, budget_minutes: float | None) -> list[Checked]:
        calls.append((profile, budget_minutes))
        return chosen[:done]

    def recorded(check: Checked, profile: Profile) -> Path | None:
        return Path("there") / f"{check.name}.json" if check.check in kept else None

    stand_in(monkeypatch, "fewbits.experiments", float16=types.SimpleNamespace(runs=runs))
    stand_in(monkeypatch, "fewbits.study.run", run_each=run_each, recorded=recorded)
    return calls


def test_verify_prints_a_line_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = verification(monkeypatch, [Checked("add"), Checked("sqrt")])
    result = CliRunner().invoke(main, ["verify", "float16"])
    assert result.exit_code == 0
    header, *lines = result.output.splitlines()
    assert header.split() == ["check", "cases", "mismatches", "seconds"]
    assert [line.split() for line in lines] == [[name, "4,294,967,296", "0", "61"] for name in ("add", "sqrt")]
    assert calls == [Profile.FULL, (Profile.FULL, None)], "who asks for a verification wants all cases"
    assert CliRunner().invoke(main, ["verify", "float16", "--profile", "smoke", "--budget", "3"]).exit_code == 0
    assert calls[2:] == [Profile.SMOKE, (Profile.SMOKE, 3.0)]
    assert CliRunner().invoke(main, ["verify", "float17"]).exit_code == 2


def test_verify_says_what_is_recorded_and_of_which_source(monkeypatch: pytest.MonkeyPatch) -> None:
    verification(monkeypatch, [Checked("add"), Checked("sub", proven=False), Checked("mul")], ("add", "sub"))
    _, add, sub, mul, note = CliRunner().invoke(main, ["verify", "float16"]).output.splitlines()
    assert add.endswith("61  recorded")
    assert sub.endswith("61  recorded, of other source code than this")
    assert mul.endswith("61")
    assert note == "2 were recorded before. To do one again, delete its file in there."


def test_verify_fails_on_a_mismatch_and_says_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    verification(monkeypatch, [Checked("add"), Checked("sub", 3), Checked("mul", 1)])
    result = CliRunner().invoke(main, ["verify", "float16"])
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 4
    assert "verify-sub 0x3c00: got 0x0001, expected 0x0000; verify-mul 0x3c00" in result.stderr


def test_verify_that_is_out_of_time_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    verification(monkeypatch, [Checked("add"), Checked("sub"), Checked("mul")], kept=("mul",), done=2)
    result = CliRunner().invoke(main, ["verify", "float16", "--budget", "1"])
    assert result.exit_code == 0
    _, first, second, *notes = result.output.splitlines()
    assert [line.split()[0] for line in (first, second)] == ["mul", "add"], "what is recorded comes first"
    assert notes[1:] == ["1 are unfinished; the same command goes on where this one stopped."]


def test_ledger_prints_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "fewbits.study.ledger", ledger=lambda: pd.DataFrame({"id": ["S6"], "verdict": ["open"]}))
    assert CliRunner().invoke(main, ["ledger"]).output.split() == ["id", "verdict", "S6", "open"]


def test_results_print_a_line_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(
        experiment="lstm",
        version=1,
        profile=Profile.FULL,
        name="float-0",
        key="k",
        result=Result(config={}, metrics={"perplexity": 110.5}, history=[], weights_sha256=None),
        provenance=Provenance(commit="c", device="CPU", wall_seconds=1800, peak_memory_bytes=1, versions={}, data={}),
    )
    counted = Result(config={}, metrics={"cases": 7}, history=[], weights_sha256=None)
    other = record.model_copy(update={"experiment": "formats", "result": counted})
    monkeypatch.setattr(records, "full_records", lambda: [other, record])
    tables = CliRunner().invoke(main, ["results"]).output.split("\n\n")
    words = [[line.split() for line in table.splitlines()] for table in tables]
    assert words == [
        [["experiment", "run", "device", "cases", "hours"], ["formats", "float-0", "CPU", "7", "0.5"]],
        [["experiment", "run", "device", "perplexity", "hours"], ["lstm", "float-0", "CPU", "110.5", "0.5"]],
    ]
    monkeypatch.setattr(records, "full_records", list)
    assert CliRunner().invoke(main, ["results"]).output == "nothing yet\n"
