"""The command line: every command is one call of the package.

Imports are inside the commands, so that ``fewbits --help`` does not wait for torch or papermill.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fewbits import __version__
from fewbits.errors import FewbitsError
from fewbits.study.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FewbitsError as error:
            click.echo(f"fewbits: {error}", err=True)
            sys.exit(1)


def _profile(default: Profile | None) -> Callable[[Any], Any]:
    note = "How much is computed."
    choice = click.Choice([str(profile) for profile in Profile])
    return click.option("--profile", type=choice, default=default and str(default), show_default=True, help=note)


def _pair(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, _value in pairs:
        if not (name.strip() and sign):
            raise click.BadParameter(f"{name!r} is not of the form name=value")
    return {name.strip(): value for name, _sign, value in pairs}


def _print(table: "pd.DataFrame") -> None:
    if table.empty:
        click.echo("nothing yet")
    else:
        click.echo(table.to_string(index=False, max_colwidth=60, na_rep="–"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Language models on few bits: run the study, look at its results."""


@main.command()
@click.argument("notebook")
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=_pair, help="A parameter; repeatable.")
@_profile(None)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [default: _build/runs]")
def run(notebook: str, parameters: dict[str, str], profile: str | None, out: Path | None) -> None:
    """Execute NOTEBOOK (a name or a path) with parameters."""
    from fewbits import project
    from fewbits.study.notebooks import execute, find

    source = find(notebook)
    folder = out or project.root() / "_build" / "runs"
    values = parameters | ({"profile": profile} if profile else {})
    executed = execute(source, values, folder / f"{source.stem}.ipynb")
    click.echo(f"{executed.notebook}  ({executed.seconds:.0f} s)")


@main.command()
@_profile(Profile.LAPTOP)
@click.option("--notebook", help="Only this one.  [default: all]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Notebooks at the same time.")
def book(profile: str, notebook: str | None, jobs: int) -> None:
    """Execute what changed and build the book."""
    from fewbits.study.workflow import build

    built = build(Profile(profile), notebook, jobs)
    for name, seconds in built.seconds.items():
        click.echo(f"{seconds:8.0f} s  {name}")
    click.echo(f"The book is here: {built.page}")


@main.command()
@click.argument("notebooks", nargs=-1)
def references(notebooks: tuple[str, ...]) -> None:
    """Regenerate the committed pairs of NOTEBOOKS, or of all, and the README's picture."""
    from fewbits.study.notebooks import find, sources
    from fewbits.study.references import refresh, refresh_picture

    for source in [find(name) for name in notebooks] or sources():
        click.echo(f"{'changed' if refresh(source) else 'the same'}  {source.with_suffix('.ipynb')}")
    click.echo(f"{'changed' if refresh_picture() else 'the same'}  README picture")


@main.group()
def data() -> None:
    """Look at the data sets, get them, check them."""


@data.command("list")
def list_data() -> None:
    """Show what data there is, and where it was found."""
    from fewbits.data import data_table

    _print(data_table())


@data.command("get")
@click.argument("names", nargs=-1, required=True)
def get_data(names: tuple[str, ...]) -> None:
    """Download the data sets NAMES from their public homes."""
    from fewbits.data import get

    for name in names:
        click.echo(get(name))


@data.command("check")
@click.argument("names", nargs=-1)
def check_data(names: tuple[str, ...]) -> None:
    """Compare the files of the data sets NAMES, or of all, with their hashes."""
    from fewbits.data import check, data_table

    reports = {name: check(name) for name in names or data_table()["name"]}
    for report in reports.values():
        click.echo(report)
    if wrong := [name for name, report in reports.items() if not report.ok]:
        raise FewbitsError(f"not in order: {', '.join(wrong)}. What is wrong and what to do is said above.")


@main.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Stop in time.")
@click.option("--only", metavar="NAME", help="Only this run.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only show which they are.")
def full(device: str, budget: float | None, only: str | None, dry_run: bool) -> None:
    """Compute the full runs that have no record yet; a stopped run goes on where it was."""
    if dry_run:
        import pandas as pd

        from fewbits.study.run import missing

        _print(pd.DataFrame([{"experiment": run.experiment, "run": run.name} for run in missing(device, only)]))
        return
    from fewbits.study.run import run_full

    made = run_full(device, budget, only)
    click.echo(f"{len(made)} new records; `fewbits results` shows all")
    if budget:
        click.echo("What is unfinished goes on from its checkpoint when you give the same command again.")


@main.command()
@click.argument("what", type=click.Choice(["float16"]))
@_profile(Profile.FULL)
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Stop in time.")
def verify(what: str, profile: str, budget: float | None) -> None:
    """Compare WHAT with independent oracles, case by case; a stopped verification goes on where it was.

    The full profile compares all cases where they can be counted, many random ones elsewhere, and keeps a record of
    each check; a check that has one is not done again.
    """
    from fewbits.experiments import float16
    from fewbits.study.run import recorded, run_each

    checks = float16.runs(Profile(profile))
    kept = {check.name: path for check in checks if (path := recorded(check, Profile(profile)))}
    checks.sort(key=lambda check: check.name not in kept)  # what is there is shown before anything is computed
    click.echo(f"{'check':18} {'cases':>13} {'mismatches':>10} {'seconds':>8}")
    done = []
    for check, record in zip(checks, run_each(checks, Profile(profile), budget_minutes=budget), strict=False):
        found, note = record.result.metrics, "recorded" if check.name in kept else ""
        if not check.proves(record):
            note = "recorded, of other source code than this"
        seconds = record.provenance.wall_seconds
        click.echo(f"{check.check:18} {found['cases']:13,} {found['mismatches']:10,} {seconds:8.0f}  {note}".rstrip())
        done.append(record)
    if kept:
        folder = next(iter(kept.values())).parent
        click.echo(f"{len(kept)} were recorded before. To do one again, delete its file in {folder}.")
    if len(done) < len(checks):
        click.echo(f"{len(checks) - len(done)} are unfinished; the same command goes on where this one stopped.")
    if wrong := [f"{r.name} {r.result.metrics['first_mismatch']}" for r in done if r.result.metrics["mismatches"]]:
        raise FewbitsError(
            f"{what} is not what its oracles say, first at: {'; '.join(wrong)}. Look at the versions of numpy and "
            "ml_dtypes, then compare the case with fewbits.formats.float16.reference."
        )


@main.command()
def results() -> None:
    """Show the committed records of full runs."""
    from itertools import groupby

    import pandas as pd

    from fewbits.study.records import full_records

    found = full_records()
    if not found:
        click.echo("nothing yet")
    for number, (experiment, group) in enumerate(groupby(found, lambda record: record.experiment)):
        rows = [
            {"experiment": experiment, "run": record.name, "device": record.provenance.device}
            | record.result.metrics
            | {"hours": record.provenance.wall_seconds / 3600}
            for record in group
        ]
        click.echo("\n" * (number > 0), nl=False)
        _print(pd.DataFrame(rows))


@main.command()
def ledger() -> None:
    """Show every claim of the documents with its verdict."""
    from fewbits.study.ledger import ledger as rows

    _print(rows())
