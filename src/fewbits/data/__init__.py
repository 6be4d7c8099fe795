"""Text for language models: what there is, where it is found, its tokens, vocabularies and batches."""

from fewbits.data.batching import bptt_windows, contiguous
from fewbits.data.corpora import Corpus, load_corpus
from fewbits.data.inventory import Report, check, data_table, get
from fewbits.data.sources import Source, data_hashes
from fewbits.data.vocabulary import Vocabulary

__all__ = [
    "Corpus",
    "Report",
    "Source",
    "Vocabulary",
    "bptt_windows",
    "check",
    "contiguous",
    "data_hashes",
    "data_table",
    "get",
    "load_corpus",
]
