"""What the runs that read a running text have in common."""

from typing import Annotated

from pydantic import Field

from fewbits.data import Corpus, data_hashes, load_corpus
from fewbits.study.run import Configuration

Count = Annotated[int, Field(ge=1)]


class OnText(Configuration):
    """A run on the beginning of a text."""

    corpus: str = "ptb"
    vocabulary_size: Count | None = None  #: None is the corpus's own
    train_tokens: Count | None = None  #: the first so many; None is all
    evaluation_tokens: Count | None = None  #: of validation and of test text

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return data_hashes(self.corpus)

    def load(self) -> Corpus:
        """Return the text, as long as this run reads it."""
        return load_corpus(self.corpus, self.vocabulary_size).shortened(self.train_tokens, self.evaluation_tokens)
