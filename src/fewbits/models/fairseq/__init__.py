"""fairseq's published translators: their checkpoints, dictionaries and text, read as models of this package."""

from fewbits.models.fairseq.dictionary import Dictionary
from fewbits.models.fairseq.loading import FairseqModel, load_fairseq
from fewbits.models.fairseq.text import MosesBpe, remove_bpe

__all__ = ["Dictionary", "FairseqModel", "MosesBpe", "load_fairseq", "remove_bpe"]
