"""Sentences and their translations as they were written, for translators that read pieces of words."""

from dataclasses import dataclass

from fewbits.data import registry, sources
from fewbits.data.registry import ParallelText, Side
from fewbits.errors import FewbitsError

Translated = tuple[str, str]  #: a sentence and its translation


@dataclass(frozen=True, eq=False)
class Sentences:
    """Pairs of sentences by the name of their part: ``train``, ``valid`` and tests."""

    name: str
    parts: dict[str, tuple[Translated, ...]]
    hashes: dict[str, str]  #: SHA-256 of each file that was read, by its registered path

    @property
    def tests(self) -> tuple[str, ...]:
        """The names of the parts to test on."""
        return tuple(part for part in self.parts if part not in ("train", "valid"))


def load_sentences(name: str) -> Sentences:
    """Return the sentences of the data set ``name``, found on this machine and checked by hash.

    Of sentence files (``multi30k-en-de``) the parts are theirs, and every line is kept. A parallel text made of words
    (``bible-en-fr``) gives the pairs that its selection keeps, as they stand in the file: of each twenty the first is
    for the test and the second for validation. Blanks at the ends of a sentence are dropped.

    Raises:
        FewbitsError: If the data set is unknown, of another kind, missing or damaged, the two files of a part have
            different numbers of lines, or a line is empty.
    """
    entry = registry.entry(name)
    files = {located.file.path: located for located in sources.find(name)}
    hashes = {path: located.sha256() for path, located in files.items()}
    lines = {
        path: [line for content in located.read() for line in located.file.documents.within(content)]
        for path, located in files.items()
    }
    if isinstance(entry, ParallelText):
        kept = [
            entry.selection.sentences(line)
            for path in files
            for line in lines[path]
            if entry.selection.pair(line, entry.tokenization)
        ]
        chosen = {"train": [pair for number, pair in enumerate(kept) if number % 20 > 1]}
        chosen |= {"valid": kept[1::20], "test": kept[::20]}
        return Sentences(name, {part: _stripped(name, part, pairs) for part, pairs in chosen.items()}, hashes)
    entry = registry.sentence_files(name)
    parts = {}
    for part in entry.pairs:
        source, target = (lines[entry.file(part, side).path] for side in Side)
        if len(source) != len(target):
            raise FewbitsError(
                f"{name}, {part}: {len(source):,} lines and {len(target):,} translations. Line n of one file must be "
                "the translation of line n of the other: look for a sentence that was cut, joined or left out."
            )
        parts[part] = _stripped(name, part, list(zip(source, target, strict=True)))
    return Sentences(name, parts, hashes)


def _stripped(name: str, part: str, pairs: list[Translated]) -> tuple[Translated, ...]:
    stripped = tuple((source.strip(), target.strip()) for source, target in pairs)
    if empty := [number for number, pair in enumerate(stripped, 1) if not all(pair)]:
        raise FewbitsError(f"{name}, {part}: sentence {empty[0]:,} is empty on one side; take the original file.")
    return stripped
