"""The table of what each quantizer can do, against what is known of them."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import study_frames
import study_quantizers
import torch
import yaml

from fewbits import project, quantizers
from fewbits.errors import FewbitsError
from fewbits.quantizers import Binary, PerRow, PerTensor, Quantizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = study_frames.frame("quantizers")
    return rows.set_index(rows["quantizer"].str.partition("(")[0])


def yes(table: pd.DataFrame, column: str) -> set[str]:
    assert set(table[column]) <= {"yes", ""}
    return set(table.index[table[column] == "yes"])


def test_every_quantizer_has_a_row(table: pd.DataFrame) -> None:
    def below(kind: type) -> set[str]:
        return {name for each in kind.__subclasses__() for name in {each.__name__, *below(each)}}

    assert len(table) > 10
    assert set(table.index) == below(Quantizer) & set(quantizers.__all__)


def test_the_cells_are_what_is_known(table: pd.DataFrame) -> None:
    everyone = set(table.index)
    assert yes(table, "packed") == yes(table, "gradient") == everyone
    for granularity in ("PerTensor", "PerRow", "PerGroup", "PerGate"):
        assert yes(table, granularity) == everyone - {"Fixed"}
    assert yes(table, "learned table") == {"TTQ", "Codebook"}
    assert yes(table, "importance") == {"Binary", "LeastSquaresTernary", "Uniform", "Codebook"}
    bits = {"Binary": "1", "TWN": "2", "Uniform": "2–16", "MidRise": "1–16", "Codebook": "1–8", "Fixed": "4"}
    assert {name: table.loc[name, "bits"] for name in bits} == bits
    assert set(table["CUDA"]) == {"run" if torch.cuda.is_available() else "not run here"}


def test_every_quantizer_is_used_by_the_tests_that_are_named(table: pd.DataFrame) -> None:
    for name, modules in table["tested in"].items():
        assert modules
        for module in modules.split(", "):
            assert re.search(rf"\b{name}\b", (ROOT / "tests" / "quantizers" / f"{module}.py").read_text("utf-8"))
    assert "test_fixed" in table.loc["Fixed", "tested in"]
    assert "test_fixed" not in table.loc["TWN", "tested in"]


class Detached(Binary):
    """Values without a gradient."""

    def __call__(self, weight, **options):
        return super().__call__(weight, **options).detach().requires_grad_()


class Whole(Binary):
    """Takes a granularity and does not use it."""

    def encode(self, weight, **options):
        codes = super().encode(weight, **options)
        return type(codes)(codes.integers, codes.grid, codes.tables, 1)


class Forgetful(Binary):
    """Evaluates to other values than it is packed as."""

    def __call__(self, weight, **options):
        return 2 * super().__call__(weight, **options)


def test_what_does_not_work_is_seen() -> None:
    weight = torch.linspace(-1, 1, 32).reshape(8, 4)
    assert study_quantizers.passes_gradient(Binary(), weight)
    assert not study_quantizers.passes_gradient(Detached(), weight)
    assert study_quantizers.has_groups(Binary(), PerRow(), weight)
    assert study_quantizers.has_groups(Whole(), PerTensor(), weight)
    assert not study_quantizers.has_groups(Whole(), PerRow(), weight)
    assert study_quantizers.is_packed(Binary())
    assert not study_quantizers.is_packed(Forgetful())


def test_a_quantizer_without_an_example_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Newcomer(Binary):
        pass

    monkeypatch.setattr(quantizers, "Newcomer", Newcomer, raising=False)
    monkeypatch.setattr(quantizers, "__all__", [*quantizers.__all__, "Newcomer"])
    with pytest.raises(FewbitsError, match="differ: Newcomer"):
        study_quantizers.quantizer_matrix()


def test_a_checkout_without_tests_has_an_empty_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    assert set(map(tuple, study_quantizers.used_by().values())) == {()}


def test_the_table_is_on_a_page_that_the_book_lists() -> None:
    chapters = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    assert {"file": "book/quantizers_matrix"} in [each for part in chapters for each in part["chapters"]]
    assert "{study-table} quantizers\n" in (ROOT / "book" / "quantizers_matrix.md").read_text(encoding="utf-8")
    assert "(quantizers_matrix.md)" in (ROOT / "book" / "quantise_your_own_model.md").read_text(encoding="utf-8")
