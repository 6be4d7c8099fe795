"""Whole or not at all: with a failure injected at each step, and with readers at every moment."""

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewbits import atomic
from fewbits.errors import FewbitsError

OLD = b"the old content"


@pytest.fixture(params=["new file", "old file"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "it.json"
    if request.param == "old file":
        path.write_bytes(OLD)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def full_disk(real: Callable[..., Any]) -> Callable[..., Any]:
    """Open files that take a few bytes and then find the disk full."""

    class Full:
        def __init__(self, descriptor: int) -> None:
            self.file = real(descriptor, "wb", buffering=0)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda descriptor, _mode: Full(descriptor)


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 9, "zażółć gęślą jaźń\n", b"x" * 3_000_000])
def test_what_is_written_is_there(target: Path, content: bytes | str) -> None:
    atomic.write(target, content)
    expected = content.encode("utf-8") if isinstance(content, str) else content
    assert contents(target.parent) == {target.name: expected}


def test_missing_folders_are_made(tmp_path: Path) -> None:
    atomic.write(tmp_path / "a" / "b" / "it", "text")
    assert (tmp_path / "a" / "b" / "it").read_text() == "text"


def test_others_may_read_the_file(target: Path) -> None:
    atomic.write(target, "text")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("tempfile.mkstemp", errno.EACCES),
        ("os.fsync", errno.ENOSPC),
        ("os.fsync", errno.EIO),
        ("os.chmod", errno.EPERM),
        ("os.replace", errno.EROFS),
    ],
)
def test_a_failure_at_any_step_changes_nothing(
    target: Path, step: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(target.parent)
    with monkeypatch.context() as patch:
        patch.setattr(step, failing(number))
        with pytest.raises(FewbitsError) as caught:
            atomic.write(target, "new content")
    message = str(caught.value)
    assert message.startswith(f"cannot write {target}: {os.strerror(number)}. The file there, if any, is as it was.")
    assert "Free some space or make the folder writable" in message
    assert contents(target.parent) == before
    atomic.write(target, "new content")
    assert contents(target.parent) == {target.name: b"new content"}


def test_a_disk_that_fills_up_while_writing_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(target.parent)
    monkeypatch.setattr(os, "fdopen", full_disk(os.fdopen))
    with pytest.raises(FewbitsError, match="No space left on device"):
        atomic.write(target, "new content")
    assert contents(target.parent) == before


def test_an_interruption_leaves_nothing_behind(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    before = contents(target.parent)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(target, "new content")
    assert contents(target.parent) == before


def test_the_bytes_are_on_the_disk_before_the_name_is(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sizes: list[int] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        order.append("fsync")
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def note_replace(source: str, destination: Path) -> None:
        order.append("replace")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    atomic.write(target, b"x" * 70_000)
    assert (order, sizes) == (["fsync", "replace"], [70_000])


def test_the_temporary_file_is_in_the_same_folder(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(target.parent / "elsewhere"))  # which is no folder
    atomic.write(target, "text")
    assert target.read_text() == "text"


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(FewbitsError, match="cannot write"):
        atomic.write(tmp_path / "it", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(FewbitsError, match="cannot write"):
        atomic.write(tmp_path / "folder" / "it", "text")
    assert (tmp_path / "folder").read_text() == "in the way"


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    path = tmp_path / "it"
    versions = [bytes([65 + number]) * (200_000 + number) for number in range(4)]
    atomic.write(path, versions[0])
    done = threading.Event()
    seen: set[bytes] = set()
    wrong: list[int] = []

    def read() -> None:
        while not done.is_set():
            content = path.read_bytes()
            seen.add(content[:1])
            if content not in versions:
                wrong.append(len(content))

    def write(own: bytes) -> None:
        for _ in range(40):
            atomic.write(path, own)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=[own]) for own in versions]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not wrong
    assert len(seen) > 1, "the readers saw no change: the test proves nothing"
    assert path.read_bytes() in versions
    assert [each.name for each in tmp_path.iterdir()] == ["it"]
