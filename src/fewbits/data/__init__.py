"""Text for language models, and images: what there is, where it is found, tokens, vocabularies and batches."""

from fewbits.data.batching import contiguous
from fewbits.data.corpora import Corpus, load_corpus
from fewbits.data.images import Images, Labelled, load_images
from fewbits.data.inventory import Report, check, data_table, get
from fewbits.data.parallel import PairSplit, ParallelCorpus, load_pairs, read_pairs, split_pairs
from fewbits.data.selection import Pair, Sentence
from fewbits.data.sentence_vocabulary import SentenceVocabulary
from fewbits.data.sentences import Sentences, Translated, load_sentences
from fewbits.data.sources import Source, data_hashes
from fewbits.data.subwords import Subwords
from fewbits.data.tokenization import Tokenization
from fewbits.data.vocabulary import Vocabulary, coverage

__all__ = [
    "Corpus",
    "Images",
    "Labelled",
    "Pair",
    "PairSplit",
    "ParallelCorpus",
    "Report",
    "Sentence",
    "SentenceVocabulary",
    "Sentences",
    "Source",
    "Subwords",
    "Tokenization",
    "Translated",
    "Vocabulary",
    "check",
    "contiguous",
    "coverage",
    "data_hashes",
    "data_table",
    "get",
    "load_corpus",
    "load_images",
    "load_pairs",
    "load_sentences",
    "read_pairs",
    "split_pairs",
]
