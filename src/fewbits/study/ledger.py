"""The ledger as a table: each claim, what is published, what we found, and the verdict that follows.

The rows come from :mod:`fewbits.study.claims`, the rules of the verdicts from :mod:`fewbits.study.verdicts`.
"""

import difflib

import pandas as pd

from fewbits import project
from fewbits.errors import FewbitsError
from fewbits.study import records, verdicts
from fewbits.study.claims import Certainty, documents

LEDGER_COLUMNS = ("id", "document", "claim", "kind", "published", "ours", "verdict", "chapter")
NUMBERS = ("weight_bits", "activation_bits", "value", "own_float")
PUBLISHED_COLUMNS = (
    "paper", "method", "cell", "corpus", "weight_bits", "activation_bits", "metric", "value", "own_float",
    "certainty", "own_float_certainty", "source", "note",
)  # fmt: skip


def ledger() -> pd.DataFrame:
    """Return one row a claim, in the order of the documents, judged by the committed ``full`` records.

    Columns: id, document, claim, kind, published (each number with its certainty mark), ours (mean [95 % interval], n),
    verdict, chapter. Text that there is none of is the empty string.

    Raises:
        FewbitsError: If a claims file or a record is unreadable, or they do not fit each other.
    """
    stored = records.full_records()
    rows = []
    for document in documents():
        for claim in document.claims:
            judgement = verdicts.judge(claim, stored)
            published_numbers = "; ".join(map(str, claim.published))
            texts = (claim.kind, published_numbers, judgement, judgement.verdict, claim.chapter or "")
            rows.append([claim.id, document.name, claim.title, *map(str, texts)])
    return pd.DataFrame(rows, columns=list(LEDGER_COLUMNS))


def published(name: str) -> pd.DataFrame:
    """Return the tidy table ``data/published/<name>.csv``: one row a published number.

    Columns, meaning and sources: ``data/published/README.md``. A number that was not found is NaN and has a note; text
    that there is none of is the empty string.

    Raises:
        FewbitsError: If there is no such table (names like it are offered), or it is not as the README says.
    """
    folder = project.root() / "data" / "published"
    names = sorted(path.stem for path in folder.glob("*.csv"))
    if name not in names:
        near = ", ".join(difflib.get_close_matches(name, names, cutoff=0.5) or names)
        raise FewbitsError(f"there is no published table {name!r}. Perhaps you mean: {near}.")
    path = folder / f"{name}.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[[*PUBLISHED_COLUMNS]]
        numbers = table[[*NUMBERS]].replace("", "nan").astype(float)
    except (ValueError, KeyError) as error:
        raise FewbitsError(f"{path} is no table of published numbers: {error}. Correct it.") from error
    if wrong := sorted(set(table["certainty"]) - set(Certainty)):
        marks = ", ".join(Certainty)
        raise FewbitsError(f"{path} has the certainty {', '.join(map(repr, wrong))}; the marks are {marks}.")
    return table.assign(**numbers)
