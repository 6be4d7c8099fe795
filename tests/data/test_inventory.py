import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fewbits.data import Source, check, data_table, get
from fewbits.errors import FewbitsError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "home"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def move_home(study, home: Path) -> None:
    (study.folder / "toy").rename(home / "toy")


def test_get_fetches_into_the_cache(study, home) -> None:
    address, folder = home
    study.splits("toy", "a b\n", "a\n", "b\n", url=address)
    move_home(study, folder)
    assert check("toy").state == "missing"
    report = get("toy", progress=False)
    assert report.ok
    assert report.source is Source.CACHE
    assert (study.cache / "data" / "toy" / "train.txt").read_text() == "a b\n"


def test_get_replaces_a_damaged_file_in_the_cache(study, home) -> None:
    address, folder = home
    study.splits("toy", "a b\n", "a\n", "b\n", url=address)
    move_home(study, folder)
    get("toy", progress=False)
    (study.cache / "data" / "toy" / "valid.txt").write_text("damaged\n")
    assert check("toy").state == "damaged"
    assert get("toy", progress=False).state == "verified"


def test_get_keeps_nothing_that_has_a_wrong_hash(study, home) -> None:
    address, folder = home
    study.splits("toy", "a b\n", "a\n", "b\n", url=address)
    move_home(study, folder)
    (folder / "toy" / "train.txt").write_text("not it\n")
    with pytest.raises(FewbitsError, match=r"(?s)toy/train.txt.*127\.0\.0\.1.*expected SHA-256.*data get toy"):
        get("toy", progress=False)
    assert not [path for path in study.cache.rglob("*") if path.is_file()]


def test_get_explains_a_failed_download(study, home) -> None:
    address, _ = home
    study.splits("toy", "a b\n", "a\n", "b\n", url=f"{address}/elsewhere")
    (study.folder / "toy").rename(study.folder / "away")
    with pytest.raises(FewbitsError, match="404"):
        get("toy", progress=False)


def test_get_does_not_download_around_a_damaged_folder(study, home) -> None:
    address, _ = home
    study.splits("toy", "a b\n", "a\n", "b\n", url=address)
    study.put("toy/test.txt", b"damaged")
    with pytest.raises(FewbitsError, match="unset FEWBITS_DATA"):
        get("toy", progress=False)


def test_get_without_a_home_says_what_to_do(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    (study.folder / "toy" / "train.txt").unlink()
    with pytest.raises(FewbitsError, match="its home is nowhere"):
        get("toy")


def test_check_reports_every_damaged_file(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    study.put("toy/train.txt", b"damaged")
    study.put("toy/test.txt", b"damaged too")
    report = check("toy")
    assert report.state == "damaged"
    assert report.variants == {"toy/valid.txt": "toy"}
    assert len(report.problems) == 2
    assert "toy: damaged (folder FEWBITS_DATA)\n  toy/valid.txt: toy" in str(report)


def test_the_table_has_a_row_a_data_set(study) -> None:
    study.splits("here", "a b\n", "a\n", "b\n")
    study.splits("gone", "a b\n", "a\n", "b\n")
    (study.folder / "gone" / "train.txt").unlink()
    table = data_table()
    columns = ["name", "title", "language", "tokens", "types", "images", "licence", "found", "check"]
    assert list(table.columns) == columns
    assert table[["name", "tokens", "found", "check"]].to_numpy().tolist() == [
        ["here", 3, "folder FEWBITS_DATA", "verified"],
        ["gone", 3, "not found", "missing"],
    ]


def test_the_table_has_the_tokens_of_texts_and_the_number_of_images(study) -> None:
    study.splits("text", "a b\n", "a\n", "b\n")
    study.images("dots", "rows", (1, 1, 1), 3, {"dots/dots.csv": b"1,0\n2,1\n3,2\n4,0\n5,1\n"}, test=2)
    rows = data_table().set_index("name")
    assert rows.loc["text", ["tokens", "types"]].tolist() == [3, 3]
    assert rows.loc["dots", ["language", "images", "check"]].tolist() == ["", 5, "verified"]
    assert rows[["tokens", "types", "images"]].isna().to_numpy().tolist() == [[False, False, True], [True, True, False]]
    assert [str(kind) for kind in rows[["tokens", "types", "images"]].dtypes] == ["Int64"] * 3, "no number is a float"


def test_a_text_that_nobody_counted_has_no_numbers(study) -> None:
    study.put("text/text.txt", b"a b\n")
    study.register("text", [{"path": "text/text.txt", "documents": "line", "sha256": {}}])
    del study.entries["text"]["tokens"], study.entries["text"]["types"]
    study.write()
    row = data_table().set_index("name").loc["text"]
    assert row[["tokens", "types", "images"]].isna().all()
    assert (row["language"], row["check"]) == ("English", "unchecked")


def test_importing_the_package_is_light() -> None:
    program = "import sys, fewbits.data; print([m for m in ('pandas', 'pooch', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
