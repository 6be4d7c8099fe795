"""Executing the notebooks and building the book: one Snakemake target, run by one process at a time."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fewbits import project
from fewbits.errors import FewbitsError
from fewbits.study.notebooks import find
from fewbits.study.profiles import Profile


@dataclass(frozen=True)
class Book:
    """A book that was built."""

    page: Path  #: its first page
    seconds: dict[str, float]  #: wall time of each notebook's last execution


def build(profile: Profile, notebook: str | None = None, jobs: int = 1) -> Book:
    """Execute the notebooks whose source, package, data or profile changed, and build the book from them.

    ``notebook`` restricts it to one notebook; the book then shows the chapters that exist. ``jobs`` notebooks run at
    the same time and share the processor's cores.

    Raises:
        FewbitsError: If a notebook is unknown or fails, the book has warnings, or another build is running.
    """
    root = project.root()
    settings = [f"profile={profile}"]
    if notebook:
        settings.append(f"notebook={find(notebook).stem}")
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--cores", str(jobs)]
    # The lock below ends with its processes; Snakemake's own stays after a kill and has to be removed by hand.
    command += ["--quiet", "all", "--nolock", "--rerun-incomplete", "--keep-going"]
    command += ["book", "--config", *settings]
    with (_folder(root) / "book.lock").open("w") as lock:
        _claim(lock, root)
        # the children hold the lock too, so that a killed parent does not let a second build in beside them
        done = subprocess.run(command, cwd=root, pass_fds=[lock.fileno()], check=False)
    if done.returncode:
        raise FewbitsError(
            "the book was not built; the reason is above. A notebook that failed can be read in _build/runs. "
            "What was finished is kept: run the same command again after the repair."
        )
    return Book(root / "_build" / "html" / "index.html", seconds(root))


def seconds(root: Path) -> dict[str, float]:
    """Return how long the last execution of each chapter in ``root`` took, in seconds."""
    chapters = sorted((root / "book" / "chapters").glob("[!.]*.ipynb"))
    return {path.stem: json.loads(path.read_bytes())["metadata"]["papermill"]["duration"] for path in chapters}


def contents(root: Path) -> dict[str, Any]:
    """Return the table of contents of ``root`` without the chapters that were not executed yet."""
    toc: dict[str, Any] = yaml.load((root / "_toc.yml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {key: _present(value, root) for key, value in toc.items()}


def _present(entry: Any, root: Path) -> Any:
    if isinstance(entry, list):
        return [_present(item, root) for item in entry if not _missing(item, root)]
    return {key: _present(value, root) for key, value in entry.items()} if isinstance(entry, dict) else entry


def _missing(entry: Any, root: Path) -> bool:
    page = str(entry.get("file", "")) if isinstance(entry, dict) else ""
    return page.startswith("book/chapters/") and not (root / page).with_suffix(".ipynb").is_file()


def _folder(root: Path) -> Path:
    folder = root / "_build"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise FewbitsError(f"cannot make {folder}: {error.strerror}. Make the checkout writable.") from error
    return folder


def _claim(lock: Any, root: Path) -> None:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FewbitsError(f"another build of the book is running in {root}. Wait for it or stop it first.") from error
