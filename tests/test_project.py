from pathlib import Path

import pytest

from fewbits import project
from fewbits.errors import FewbitsError


def test_the_root_is_this_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEWBITS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)  # the working folder is of no matter
    assert project.root() == Path(__file__).parents[1]


def test_the_root_can_be_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.yaml").write_text("")
    monkeypatch.setenv("FEWBITS_ROOT", str(tmp_path))
    assert project.root() == tmp_path


def test_a_folder_that_is_no_checkout_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWBITS_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(FewbitsError, match=rf"{tmp_path}/nowhere is no checkout .* Set FEWBITS_ROOT to your clone"):
        project.root()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"FEWBITS_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/fewbits"),
        ({"FEWBITS_CACHE": "", "XDG_CACHE_HOME": ""}, "/me/.cache/fewbits"),
        ({}, "/me/.cache/fewbits"),
    ],
)
def test_the_cache(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEWBITS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert project.cache() == Path(folder)
