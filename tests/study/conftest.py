"""A throw-away checkout with one small notebook."""

from pathlib import Path

import pytest

TOY = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Toy

```{code-cell} ipython3
:tags: [parameters]

profile: str = "smoke"  # smoke, laptop or full
seeds: int | None = None  # how many seeds
rate: float | None = None
bits: list[int] | None = None
resume: bool | None = None
note: str | None = None
```

```{code-cell} ipython3
print(profile, seeds, rate, bits, resume, repr(note))
```
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("notebooks", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "registry.yaml").write_text("")
    (tmp_path / "notebooks" / "toy.md").write_text(TOY)
    monkeypatch.setenv("FEWBITS_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failing(checkout: Path) -> Path:
    source = checkout / "notebooks" / "failing.md"
    source.write_text(TOY + '\n```{code-cell} ipython3\nraise KeyError("no such thing")\n```\n')
    return source
