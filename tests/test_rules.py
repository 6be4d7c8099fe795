"""The house rules that a machine can check.

**No typed results.** In the prose of the notebooks, the book and the README no decimal number (``97.3``, ``1e-3``) and
no percentage may be typed: a result is glued from a record, a number of a paper comes from ``data/published``. Free are
code, mathematics, ``literals``, roles and substitutions, citations, link targets, comments, HTML attributes, the
options of directives, the confidence level ``95 %`` and the version of Python. A setting such as T = 0.5 is written as
mathematics or literal.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fewbits"

#: From the ground floor up; rooms in one line are one floor. A room imports from its own floor and those below.
FLOORS = [
    {"errors", "atomic", "project", "patterns"},
    {"formats"},
    {"kernels"},
    {"quantizers"},
    {"quantize", "quantized_weight", "activations", "packed"},
    {"classifiers"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"compression"},
    {"study"},
    {"experiments"},
    {"cli", "__main__"},
]
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@cache
def tracked() -> list[Path]:
    """Every file that is in git, or would be with the next `git add`."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout: which files are in git is not known")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# --- imports go down -----------------------------------------------------------------------------------------------


def imported_rooms(code: ast.Module) -> Iterator[str]:
    """The rooms of the package that ``code`` imports from, also inside functions."""
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "fewbits":
            below = (node.module or "").split(".")[1:]
            yield from below[:1] or [alias.name for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fewbits."))


def upward(room: str, code: ast.Module) -> list[str]:
    """The imports of ``code``, in ``room``, that do not go down."""
    if room == "data":  # beside the floors: stands on the ground only, and every floor may use it
        return [other for other in imported_rooms(code) if other != "data" and HEIGHT.get(other, 99) > 0]
    return [other for other in imported_rooms(code) if other != "data" and HEIGHT.get(other, 99) > HEIGHT[room]]


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("module", named([module for module in modules() if module != PACKAGE / "__init__.py"]))
def test_imports_go_down_only(module: Path) -> None:
    assert room_of(module) in {*HEIGHT, "data"}, "a new room: give it its floor in FLOORS"
    assert not upward(room_of(module), tree(module))
    assert not [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize(
    ("room", "line", "wrong"),
    [
        ("formats", "from fewbits.models.language_model import LanguageModel", ["models"]),
        ("formats", "import fewbits.study.run", ["study"]),
        ("formats", "def f():\n    from fewbits import quantize", ["quantize"]),
        ("models", "from fewbits.formats import Codes", []),
        ("models", "from fewbits import __version__, errors", []),
        ("data", "from fewbits.formats import Codes", ["formats"]),
        ("training", "from fewbits.data import load_corpus", []),
        ("study", "from fewbits.helpers import f", ["helpers"]),
    ],
)
def test_an_upward_import_is_seen(room: str, line: str, wrong: list[str]) -> None:
    assert upward(room, ast.parse(line)) == wrong


# --- size, names, documentation --------------------------------------------------------------------------------------

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(code: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """The public functions, classes and methods of ``code``."""
    for node in code.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node)


@pytest.mark.parametrize("module", named(modules()))
def test_modules_and_functions_are_short(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 350
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, Function)]
    assert not [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60]


@pytest.mark.parametrize("module", named(modules()))
def test_everything_public_is_documented(module: Path) -> None:
    if module.name != "__main__.py":
        assert not [node.name for node in definitions(tree(module)) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", named(modules()))
def test_the_device_comes_from_the_inputs(module: Path) -> None:
    calls = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "cuda"]


def test_no_vague_rooms() -> None:
    vague = {"utils", "util", "common", "helpers", "misc", "tools"}
    assert not [path for path in [*PACKAGE.rglob("*")] if path.stem in vague]


# --- what is in git --------------------------------------------------------------------------------------------------


def test_no_large_file_is_in_git() -> None:
    assert not [path for path in tracked() if path.stat().st_size > 2**20]


#: Folders of one machine and the hosts and wheels of one registry; in two halves, so that this file passes.
PLACES = [("/wor", "k/"), ("/ro", "ot/"), ("/ho", "me/[a-z]"), ("/op", "t/"), ("/Use", "rs/"), ("file:", r"///\w")]
HOSTS = [("pythonho", "sted"), (r"pypi\.o", "rg/simple"), (r"pypi\.o", r"rg/\w+\.whl")]
MACHINE = re.compile("|".join(first + second for first, second in PLACES + HOSTS))


def test_nothing_of_one_machine_is_in_git() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match}" for match in MACHINE.findall(text)]
    assert not found


# --- no typed results ------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,}|:{3,})\s*(?P<info>.*)$")
PROSE_DIRECTIVES = re.compile(
    r"^\{(note|tip|hint|important|warning|caution|attention|danger|error|seealso|admonition|margin|sidebar|dropdown"
    r"|topic|epigraph|grid|grid-item|grid-item-card|card|tab-set|tab-item|figure|glossary|table|list-table)\}"
)
NOT_PROSE = [
    re.compile(pattern, re.DOTALL | re.MULTILINE)
    for pattern in [
        r"\$\$.*?\$\$",  # display mathematics
        r"<!--.*?-->",  # comments
        r"^%[^\n]*",
        r"(\{[\w:.-]+\})?(`+).+?\2",  # roles and literals
        r"(?<![\\$])\$[^$\n]+(?:\n[^$\n]+)?\$",  # mathematics
        r"\{\{.*?\}\}",  # substitutions
        r"\]\([^)]*\)",  # targets of links
        r"<[^>]*>",  # addresses, HTML tags
        r"https?://\S+",
        r"\bPython \d\.\d+",
    ]
]
DECIMAL = r"\d+(?:\.\d+|,\d{1,2})(?!\.?\w)(?:\s?[%×])?"  # but not 3.11.7 and 10,000
PERCENTAGE = r"(?!95\s?%)\d+\s?(?:%|percent\b)"
TYPED = re.compile(rf"(?<![\w.,])(?:{DECIMAL}|\d+e-?\d+\b|{PERCENTAGE})")


def prose(page: str) -> str:
    """Return ``page`` (MyST Markdown) without its header, code, and the options of its directives."""
    page = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.DOTALL)
    kept: list[str] = []
    inside: list[tuple[str, bool]] = []  # the open fences, and whether prose is in them
    options = False
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence and inside and not fence["info"] and fence["fence"] == inside[-1][0]:
            inside.pop()
        elif fence and all(is_prose for _, is_prose in inside):
            inside.append((fence["fence"], bool(PROSE_DIRECTIVES.match(fence["info"]))))
            options = True
            kept.append(fence["info"].partition("}")[2] if inside[-1][1] else "")
        elif all(is_prose for _, is_prose in inside):
            options = options and bool(re.match(r"\s*:[\w-]+:", line))
            kept.append("" if options else line)
    return "\n".join(kept)


def typed_results(page: str) -> list[str]:
    """Return the typed results in the prose of ``page``."""
    text = prose(page)
    for pattern in NOT_PROSE:
        text = pattern.sub(" ", text)
    return TYPED.findall(text)


def pages() -> list[Path]:
    folders = (ROOT / "notebooks", ROOT / "book")
    return [path for folder in folders for path in sorted(folder.glob("*.md"))] + [ROOT / "README.md"]


@pytest.mark.parametrize("page", named(pages()))
def test_no_result_is_typed_into_prose(page: Path) -> None:
    assert not typed_results(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The perplexity is 110.5.", ["110.5"]),
        ("We lose 12 % here, or 3.5% there, or 7 percent.", ["12 %", "3.5%", "7 percent"]),
        ("It is 2.4× as fast at a rate of 1e-3.", ["2.4×", "1e-3"]),
        ("| float | 110,5 |", ["110,5"]),
        ("```{note} Only 1.5 here\n:class: wide-2.5\nand 3.5 there\n```\nthen 4.5", ["1.5", "3.5", "4.5"]),
        (":::{admonition} A\n```python\nx = 1.5\n```\nafter 2.5\n:::\n", ["2.5"]),
        ("````{note}\n```{code-cell}\n1.5\n```\n2.5\n````", ["2.5"]),
        ("---\nversion: 1.5\n---\nText", []),
        ("```{code-cell} ipython3\n---\nmystnb: 1.5\n---\nx = 2.5\n```", []),
        ("```{figure} a.png\n:width: 12.5%\n\nA caption with 1.5\n```", ["1.5"]),
        ("With $T = 0.5$ and\n$$\nx = 0.5\n$$\n and `0.5` and ``0.75``", []),
        ("{record}`lstm/float:test_perplexity:.1f` and {{ best_1.5 }} and {cite:t}`Li2016`", []),
        ("[text](page.html#v1.5) and <https://example.com/1.5>", []),
        ("A 95 % interval, 2×200 units, 10,000 words, version 3.11.7 of Python 3.11, 5 seeds in 2016", []),
        ("% a comment 1.5\n<!-- 2.5 -->", []),
    ],
)
def test_typed_results_are_seen_and_settings_are_not(text: str, found: list[str]) -> None:
    assert typed_results(text) == found
