import fcntl
import os
import shutil
from pathlib import Path

import pytest

from fewbits.errors import FewbitsError
from fewbits.study.profiles import Profile
from fewbits.study.workflow import build, contents

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(checkout: Path) -> Path:
    """The throw-away checkout with a workflow, a package and a book of one chapter."""
    shutil.copytree(ROOT / "workflow", checkout / "workflow")
    for folder in ("src/fewbits", "book", "data/results/toy"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "src/fewbits/package.py").write_text("A = 1\n")
    (checkout / "book/start.md").write_text("# Start\n")
    (checkout / "_config.yml").write_text('only_build_toc_files: true\nexecute: {execute_notebooks: "off"}\n')
    (checkout / "_toc.yml").write_text("format: jb-book\nroot: book/start\nchapters:\n- file: book/chapters/toy\n")
    return checkout


def chapter_time(project: Path) -> int:
    return (project / "book/chapters/toy.ipynb").stat().st_mtime_ns


def test_a_second_build_does_only_what_changed(project: Path) -> None:
    built = build(Profile.SMOKE)
    assert "Start" in (project / "_build/html/book/start.html").read_text()
    assert "smoke None" in (project / "_build/html/book/chapters/toy.html").read_text()
    assert built.page.is_file()
    assert 0 < built.seconds["toy"] < 60

    before = chapter_time(project)
    os.utime(project / "src/fewbits/package.py")
    page_before = built.page.stat().st_mtime_ns
    build(Profile.SMOKE)
    assert (chapter_time(project), built.page.stat().st_mtime_ns) == (before, page_before)

    (project / "book/start.md").write_text("# Begin\n\n[nowhere](missing.md)\n")
    for _ in range(2):  # a warning is a failure, and not only the first time
        with pytest.raises(FewbitsError, match="not built"):
            build(Profile.SMOKE)
    (project / "book/start.md").write_text("# Begin\n")
    build(Profile.SMOKE)
    assert chapter_time(project) == before
    assert "Begin" in (project / "_build/html/book/start.html").read_text()

    (project / "src/fewbits/package.py").write_text("A = 2\n")
    build(Profile.SMOKE)
    assert chapter_time(project) > before

    before = chapter_time(project)
    (project / "data/claims").mkdir()
    (project / "data/claims/slides.yaml").write_text("claims: []\n")  # chapters print verdicts
    build(Profile.SMOKE)
    assert chapter_time(project) > before

    build(Profile.LAPTOP)
    assert "laptop None" in (project / "_build/html/book/chapters/toy.html").read_text()


def test_a_failure_is_a_failure_every_time(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = project / "notebooks/toy.md"
    good = source.read_text()
    build(Profile.SMOKE)
    source.write_text(good.replace("print(", "raise KeyError("))
    for _ in range(2):
        with pytest.raises(FewbitsError, match=r"not built.*_build/runs"):
            build(Profile.SMOKE)
        assert "KeyError" in capfd.readouterr().err
        assert "KeyError" in (project / "_build/runs/toy.ipynb").read_text()


def test_one_notebook_is_shown_without_the_others(project: Path) -> None:
    source = project / "notebooks/toy.md"
    (project / "notebooks/other.md").write_text(source.read_text())
    toc = project / "_toc.yml"
    toc.write_text(toc.read_text() + "- file: book/chapters/other\n")
    assert set(build(Profile.SMOKE, notebook="toy").seconds) == {"toy"}
    assert contents(project)["chapters"] == [{"file": "book/chapters/toy"}]
    assert (project / "_build/html/book/chapters/toy.html").is_file()
    assert not (project / "_build/html/book/chapters/other.html").exists()


def test_two_builds_at_once_are_refused(project: Path) -> None:
    (project / "_build").mkdir()
    with (project / "_build/book.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FewbitsError, match="another build of the book is running"):
            build(Profile.SMOKE)
