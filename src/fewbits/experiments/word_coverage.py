"""How much of a text its most frequent words cover (M5); counted, so nothing is trained and chance plays no part."""

from typing import ClassVar

from fewbits.data import Vocabulary, coverage, data_hashes, load_corpus
from fewbits.study.profiles import Profile
from fewbits.study.records import Metric
from fewbits.study.run import Computed, Configuration, Context

SHARES = tuple(percent / 100 for percent in range(0, 101, 2))  #: of the vocabulary, for the curve


class WordCoverage(Configuration):
    """The training text of one corpus."""

    experiment: ClassVar[str] = "word_coverage"
    version: ClassVar[int] = 1
    processor_only: ClassVar[bool] = True

    corpus: str = "ptb"

    @property
    def name(self) -> str:
        """The corpus."""
        return self.corpus

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return data_hashes(self.corpus)

    def compute(self, context: Context) -> Computed:
        """Count, with <eos> and <unk> as words and without them."""
        text = load_corpus(self.corpus).train
        words = text[(text != Vocabulary.eos) & (text != Vocabulary.unk)]
        metrics: dict[str, Metric] = {
            "coverage_percent": 100 * coverage(text),
            "coverage_percent_of_words": 100 * coverage(words),  # without <eos> and <unk>
            "types": len(text.unique()),
            "train_tokens": len(text),
        }
        return Computed(metrics, [], {"coverage": [coverage(text, share) for share in SHARES]}, {})


def runs(profile: Profile) -> list[WordCoverage]:
    """Return the runs of a profile: the news text, at full three others before it."""
    names = ("ptb", "wikitext-2", "polish", "news") if profile is Profile.FULL else ("news",)
    return [WordCoverage(corpus=name) for name in names]
