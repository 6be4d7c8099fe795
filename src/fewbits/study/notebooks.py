"""The strict notebook runner: papermill behind a check of the parameters.

A notebook is a MyST Markdown source, ``notebooks/NAME.md``. Its cell tagged ``parameters`` holds annotated assignments
with literal defaults and is the notebook's interface::

    profile: str = "smoke"  # smoke, laptop or full
    seeds: int | None = None  # how many seeds

papermill alone only warns about a name that it does not know and takes a value of any type.
"""

import ast
import difflib
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, create_model

from fewbits import atomic, project
from fewbits.errors import FewbitsError
from fewbits.study.profiles import Profile

#: Annotations that a parameters cell may use.
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "Literal": Literal}

#: Keeps each kernel's own log (a warning about its local port, a note at its end) from the terminal.
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]


@dataclass(frozen=True)
class Executed:
    """One execution of a notebook that came to its end."""

    notebook: Path  #: the executed notebook
    parameters: dict[str, object]  #: what was passed, after the check
    seconds: float  #: wall time


def sources() -> list[Path]:
    """Return the study's notebook sources, ``notebooks/*.md``, in the order of their names."""
    return sorted((project.root() / "notebooks").glob("*.md"))


def find(notebook: Path | str) -> Path:
    """Return the source of ``notebook``: a path to it, or the NAME of one of the study's (``.md``, ``.ipynb`` allowed).

    Where both are there, the Markdown source wins over the pair.

    Raises:
        FewbitsError: If there is no such notebook; the message names near matches.
    """
    path = Path(notebook)
    stem = path.stem if path.suffix in {".md", ".ipynb"} else path.name
    if path.suffix in {".md", ".ipynb"}:
        for candidate in (path.with_suffix(".md"), path):
            if candidate.is_file():
                return candidate
    named = {source.stem: source for source in sources()}
    if stem in named and path.parent in {Path(), Path("notebooks")}:
        return named[stem]
    raise FewbitsError(f"there is no notebook {str(notebook)!r}. {_near(stem, named)}")


def parameters(source: Path) -> type[BaseModel]:
    """Return the parameters of the notebook ``source`` as a pydantic model: names, types and defaults, nothing else.

    A string is read as the literal that it spells unless the parameter is itself a string. A notebook without
    a ``parameters`` cell takes none.

    Raises:
        FewbitsError: If the cell holds anything but annotated assignments of literals.
    """
    cells = [cell.source for cell in read(source).cells if "parameters" in cell.metadata.get("tags", [])]
    code = cells[0] if cells else ""
    lines = code.splitlines()
    fields: dict[str, Any] = {}
    try:
        for node in ast.parse(code).body:
            name, annotation, default = _assignment(node)
            comment = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset or 0 :].decode().strip("# ")
            kind, expected = _kind(name, annotation), ast.unparse(annotation)
            fields[name] = (kind, Field(ast.literal_eval(default), title=expected, description=comment))
    except (SyntaxError, NameError, TypeError, ValueError) as error:
        raise FewbitsError(
            f"the parameters cell of {source} cannot be read: {error}. Each of its lines must be an annotated "
            "assignment of a literal, such as `seeds: int | None = None  # how many seeds`."
        ) from error
    return create_model(source.stem, __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False), **fields)


def checked(source: Path, values: Mapping[str, object]) -> dict[str, object]:
    """Return ``values`` in the types that the notebook ``source`` declares.

    Raises:
        FewbitsError: If the notebook has no parameter of that name (near matches are named) or a value is ill-typed.
    """
    model = parameters(source)
    try:
        return model(**values).model_dump(mode="json", include=set(values))
    except ValidationError as error:
        wrong = {str(item["loc"][0]): item["type"] for item in error.errors()}
    raise FewbitsError("\n".join(_complaint(source.stem, model, name, kind, values) for name, kind in wrong.items()))


def execute(notebook: Path | str, parameters: Mapping[str, object], out: Path, *, progress: bool = True) -> Executed:
    """Execute ``notebook`` with ``parameters`` and put the executed notebook at ``out``, whole.

    ``progress`` shows a bar over the cells and what the cells print on the error stream. The kernel is this Python and
    starts in the current folder. A cell that fails leaves the executed notebook at ``out`` for reading.

    Raises:
        FewbitsError: If the notebook or a parameter is unknown, a value ill-typed, a cell fails (its own error ends the
            message), the kernel dies, or ``out`` cannot be written.
    """
    source = find(notebook)
    values = checked(source, parameters)
    if out.resolve() == source.with_suffix(".ipynb").resolve():
        raise FewbitsError(f"{out} is the committed pair of {source}. Choose another folder for the executed notebook.")
    partial = out.with_name(f".{out.stem}.part.ipynb")
    start = time.perf_counter()
    try:
        _run(source, values, partial, out, progress)
    finally:
        partial.unlink(missing_ok=True)
    return Executed(out, values, time.perf_counter() - start)


def _run(source: Path, values: dict[str, object], partial: Path, out: Path, progress: bool) -> None:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # its own look at the parameters cannot read `int | None`
    atomic.write(partial, nbformat.writes(read(source)))
    failure = None
    try:
        papermill.execute_notebook(
            partial,
            partial,
            values,
            kernel_name="python3",
            language="python",
            progress_bar=progress,
            stderr_file=sys.stderr if progress else None,
            extra_arguments=QUIET_KERNEL,
        )
    except PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        failure = "its Python process died, most likely for want of memory: close other programs or choose less work"
    except OSError as error:
        why = error.strerror or error
        raise FewbitsError(f"cannot write {partial}: {why}. Free some space and run again.") from error
    _publish(partial, source, out)
    if failure:
        raise FewbitsError(f"{source.stem} did not come to its end. What it did is in {out}.\n{failure}")


def _publish(partial: Path, source: Path, out: Path) -> None:
    import nbformat

    notebook = nbformat.read(partial, as_version=4)
    # papermill notes absolute paths; a reader who downloads the notebook has no use for ours
    notebook.metadata.papermill.update(input_path=source.name, output_path=out.name)
    atomic.write(out, nbformat.writes(notebook) + "\n")


def read(source: Path) -> Any:
    """Return the notebook ``source`` as an nbformat node.

    Raises:
        FewbitsError: If the file is no notebook.
    """
    import jupytext
    from nbformat import ValidationError

    try:
        return jupytext.read(source)
    except (ValueError, ValidationError) as error:
        reason = getattr(error, "message", str(error))
        raise FewbitsError(f"{source} is no notebook: {reason}. Compare its first lines with another one's.") from error


def _near(name: str, known: Mapping[str, object]) -> str:
    """Say what may have been meant by ``name``."""
    if matches := difflib.get_close_matches(name, known):
        return f"Did you mean {' or '.join(matches)}?"
    return f"There is: {', '.join(known) or 'none'}."


def _assignment(node: ast.stmt) -> tuple[str, ast.expr, ast.expr]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        return node.target.id, node.annotation, node.value
    raise ValueError(f"`{ast.unparse(node)}` has no annotation or no value")


def _kind(name: str, annotation: ast.expr) -> Any:
    """Return the type that ``annotation`` spells, prepared for values that come as text from a command line."""
    if name == "profile":
        return Annotated[Profile, Strict(False)]
    kind = eval(compile(ast.Expression(annotation), "<parameters>", "eval"), {"__builtins__": {}}, _TYPES)
    members = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return kind if str in members else Annotated[kind, BeforeValidator(_literal)]


def _literal(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.capitalize() if value in {"true", "false", "none"} else value)
    except (ValueError, SyntaxError):
        return value


def _complaint(stem: str, model: type[BaseModel], name: str, kind: str, values: Mapping[str, object]) -> str:
    if kind == "extra_forbidden":
        return f"{stem} has no parameter {name!r}. {_near(name, model.model_fields)}"
    field = model.model_fields[name]
    expected = f"{field.title} ({field.description})" if field.description else field.title
    return f"parameter {name} of {stem} cannot be {values[name]!r}: expected {expected}."
