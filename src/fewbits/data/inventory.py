"""What data there is, what of it is on this machine and undamaged, and how to get the rest."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fewbits.data import registry, sources
from fewbits.data.registry import DataFile, LabelledImages, ParallelText, RunningText, SentenceFiles
from fewbits.data.sources import Located, Source
from fewbits.errors import FewbitsError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """What a check of one data set found."""

    name: str
    source: Source | None  #: ``None``: not on this machine
    variants: dict[str, str]  #: the accepted variant that each undamaged file is, or else its hash, by registered path
    problems: tuple[str, ...]  #: what is wrong and what to do; empty if all is well

    @property
    def ok(self) -> bool:
        """Whether every file was found and has an accepted hash."""
        return not self.problems

    @property
    def state(self) -> str:
        """``verified``, ``unchecked`` (here, but with a hash that nobody knows), ``damaged`` or ``missing``."""
        if self.source is None:
            return "missing"
        if not self.ok:
            return "damaged"
        return "verified" if registry.entry(self.name).checkable else "unchecked"

    def __str__(self) -> str:
        found = f" ({self.source})" if self.source else ""
        files = (f"  {path}: {variant}" for path, variant in self.variants.items())
        return "\n".join([f"{self.name}: {self.state}{found}", *files, *self.problems])


def check(name: str) -> Report:
    """Return whether each file of the data set ``name`` is here and has an accepted hash.

    Raises:
        FewbitsError: If there is no such data set; missing and damaged files are reported, not raised.
    """
    registry.entry(name)
    try:
        located = sources.find(name)
    except FewbitsError as error:
        return Report(name, None, {}, (str(error),))
    variants, problems = {}, []
    for file in located:
        try:
            variants[file.file.path] = _variant(file)
        except FewbitsError as error:
            problems.append(str(error))
    return Report(name, located[0].source, variants, tuple(problems))


def get(name: str, progress: bool = True) -> Report:
    """Download the data set ``name`` from its public home into the cache, unless it is here already; return the check.

    Files with a wrong hash are not kept.

    Raises:
        FewbitsError: If no home is registered (the message says what to do), the copy in another place is damaged, the
            download fails, or what came has a wrong hash.
    """
    report = check(name)
    if report.ok:
        return report
    entry = registry.entry(name)
    if not entry.downloadable or report.source not in (None, Source.CACHE):
        raise FewbitsError("\n".join(report.problems))
    for file in entry.files:
        _download(name, file, progress)
    return check(name)


def data_table() -> "pd.DataFrame":
    """Return one row a data set: name, title, language, sizes, licence, where found now, state of the check.

    A text has tokens and types, and a set of images has images; what a data set has not is missing (``<NA>``). Tokens
    are counted with one ``<eos>`` a document, in all splits; of parallel text they are those of both languages, with
    one ``<eos>`` a sentence, and its types are the sizes of both vocabularies; sentences as they were written have no
    types, and their tokens stand between white space. Images are those of both splits. The hashes of all files that are
    here are checked.
    """
    import pandas as pd

    entries = registry.entries()
    reports = {name: check(name) for name in entries}
    table = pd.DataFrame(
        [
            {
                "name": name,
                "title": entry.title,
                "licence": entry.licence,
                "found": str(reports[name].source or "not found"),
                "check": reports[name].state,
                **_sizes(entry),
            }
            for name, entry in entries.items()
        ],
        columns=["name", "title", "language", "tokens", "types", "images", "licence", "found", "check"],
    )
    return table.astype(dict.fromkeys(("tokens", "types", "images"), "Int64"))


def _sizes(entry: RunningText | ParallelText | SentenceFiles | LabelledImages) -> dict[str, str | int | None]:
    if isinstance(entry, LabelledImages):
        return {"language": "", "images": sum(entry.images.values())}
    if entry.tokens is None:
        return {"language": entry.language}
    sizes: dict[str, str | int | None] = {"language": entry.language, "tokens": sum(entry.tokens.values())}
    return sizes if isinstance(entry, SentenceFiles) else {**sizes, "types": entry.types}


def _variant(located: Located) -> str:
    sha256 = located.sha256()
    return located.file.variant(sha256) or sha256


def _download(name: str, file: DataFile, progress: bool) -> None:
    import pooch

    target = sources.cache_folder() / PurePosixPath(file.path)
    sha256 = next(iter(file.sha256.values()))
    try:
        pooch.retrieve(file.url, f"sha256:{sha256}", target.name, target.parent, progressbar=progress)
    except (OSError, ValueError) as error:
        raise FewbitsError(
            f"{file.path} of the data set {name!r} was not fetched from {file.url}: {error}\n"
            f"  expected SHA-256: {sha256}\nCheck the network and the disk and run `fewbits data get {name}` again, "
            f"or put the file into FEWBITS_DATA at that path."
        ) from error
