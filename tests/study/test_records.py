"""Records made by hand: to a file and back, found again, and as a table."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fewbits.errors import FewbitsError
from fewbits.study import records
from fewbits.study.profiles import Profile
from fewbits.study.records import Provenance, Record, Result


def record(name: str = "float-0", experiment: str = "toy", **changes: Any) -> Record:
    result = {
        "config": {"arm": "float", "seed": 0, "training": {"epochs": 3}, "sizes": [1, 2]},
        "metrics": {"perplexity": 110.5, "epochs": 12, "ok": True, "note": "zażółć ±1", "missing": None},
        "history": [{"epoch": 1, "valid_loss": 5.25}, {"epoch": 2, "valid_loss": 0.1 + 0.2}],
        "arrays": {"weights": [1e-45, -0.0, 1.7976931348623157e308]},
        "texts": {"source": ["je suis là", ""], "nothing": []},
        "weights_sha256": "ab" * 32,
    }
    provenance = Provenance(
        commit="abc+changes",
        device="CPU, 1 threads",
        wall_seconds=90.5,
        peak_memory_bytes=2**40,
        versions={"torch": "2"},
        data={"ptb/train": "cd"},
    )
    return Record(
        experiment=experiment,
        version=1,
        profile=Profile.FULL,
        name=name,
        key="0123456789abcdef" * 4,
        result=Result.model_validate(result | changes),
        provenance=provenance,
    )


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "toy" / "it.json"
    records.save(record(), path)
    back = records.load(path)
    assert back == record()
    assert type(back.result.metrics["epochs"]) is int
    assert type(back.result.metrics["ok"]) is bool
    assert math.copysign(1, back.result.arrays["weights"][1]) == -1
    records.save(back, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["result"]["metrics"]["note"] == "zażółć ±1"
    assert plain["profile"] == "full"
    assert plain["result"]["texts"] == {"source": ["je suis là", ""], "nothing": []}


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_metric_that_overflowed_comes_back(value: float, tmp_path: Path) -> None:
    records.save(record(metrics={"perplexity": value}), tmp_path / "it.json")
    assert records.load(tmp_path / "it.json").result.metrics == {"perplexity": value}


def test_the_result_holds_nothing_of_where_it_was_made() -> None:
    assert set(Result.model_fields) == {"config", "metrics", "history", "arrays", "texts", "weights_sha256"}
    with pytest.raises(ValidationError, match="wall_seconds"):
        record(wall_seconds=3.0)
    assert not set(Provenance.model_fields) & set(Result.model_fields)


def test_a_record_from_before_there_were_texts_still_loads(tmp_path: Path) -> None:
    plain = record().model_dump(mode="json")
    del plain["result"]["texts"]
    path = tmp_path / "it.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert records.load(path) == record(texts={})


def test_texts_are_lists_of_text() -> None:
    for wrong in ({"source": "one text"}, {"source": [1]}, ["no name"]):
        with pytest.raises(ValidationError, match="texts"):
            record(texts=wrong)


def test_more_of_the_making_comes_back_from_the_file_in_any_shape(tmp_path: Path) -> None:
    more = {"epoch_seconds": [1.5, 2.25], "training_seconds": {"softmax": 3.5}, "driver": "550"}
    grown = record().model_copy(
        update={"provenance": Provenance.model_validate(record().provenance.model_dump() | more)}
    )
    records.save(grown, tmp_path / "it.json")
    back = records.load(tmp_path / "it.json")
    assert back == grown != record()
    assert back.provenance.model_extra == more


def test_provenance_may_grow_and_the_rest_may_not() -> None:
    plain = record().model_dump(mode="json")
    plain["provenance"]["driver"] = "550"
    assert Record.model_validate(plain).result == record().result
    with pytest.raises(ValidationError, match="extra_field"):
        Record.model_validate(plain | {"extra_field": 1})


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"\xff\xfe", b'{"experiment": ', b"[1, 2]"],
    ids=["empty", "no fields", "null", "no text", "cut", "list"],
)
def test_what_is_no_record_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    path.write_bytes(content)
    with pytest.raises(FewbitsError, match=r"it\.json is no record of this study") as caught:
        records.load(path)
    assert "Delete it and run again" in str(caught.value)


def test_a_cut_record_is_an_error_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    records.save(record(), path)
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(FewbitsError, match="no record"):
            records.load(path)


def test_a_full_disk_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    path = tmp_path / "it.json"
    records.save(record(), path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FewbitsError, match=r"cannot write .*it\.json: No space left"):
        records.save(record("another"), path)
    assert records.load(path).name == "float-0"
    assert os.listdir(tmp_path) == ["it.json"]


def test_full_records_are_found_by_experiment_and_in_order(checkout: Path) -> None:
    assert records.full_records() == []
    folder = records.published_folder()
    assert folder == checkout / "data" / "results"
    for name, experiment in [("b", "toy"), ("a", "toy"), ("c", "another"), ("d", "toy_two")]:
        records.save(record(name, experiment), folder / experiment / f"{name}.json")
    (folder / "toy" / ".a.json.part").write_text("left by a killed process")
    (folder / "README.md").write_text("text")
    assert [each.name for each in records.full_records()] == ["c", "a", "b", "d"]
    assert [each.name for each in records.full_records("toy")] == ["a", "b"]
    assert records.full_records("nothing") == []


def test_a_damaged_full_record_is_an_error(checkout: Path) -> None:
    path = records.published_folder() / "toy" / "a.json"
    records.save(record(), path)
    path.write_text("{")
    with pytest.raises(FewbitsError, match=r"toy/a\.json is no record"):
        records.full_records()


def test_the_table_has_a_row_a_record() -> None:
    other = record("binary-1", config={"arm": "binary", "seed": 1, "epochs": 5}, metrics={"perplexity": 400.0})
    rows = records.table([record(), other])
    assert len(rows) == 2
    assert rows.loc[0, ["profile", "name", "device", "wall_seconds"]].tolist() == [
        "full", "float-0", "CPU, 1 threads", 90.5,
    ]  # fmt: skip
    assert rows["arm"].tolist() == ["float", "binary"]
    assert rows["perplexity"].tolist() == [110.5, 400.0]
    assert "training" not in rows.columns, "nested settings are left out"
    assert rows.loc[0, "epochs"] == 12, "a metric"
    assert rows.loc[1, "epochs"] == 5, "a setting"


def test_a_name_that_is_setting_and_metric_has_two_columns() -> None:
    both = record(config={"vocabulary_size": None, "seed": 0}, metrics={"vocabulary_size": 10_000, "other": 1})
    (row,) = records.table([both]).to_dict("records")
    assert (row["vocabulary_size"], row["vocabulary_size_metric"], row["other"]) == (None, 10_000, 1)


def test_the_table_of_nothing_is_empty() -> None:
    assert records.table([]).empty
