"""Models: a body that reads words and a classifier that says which comes next."""

from fewbits.models.feed_forward import FeedForwardBody
from fewbits.models.language_model import LanguageModel
from fewbits.models.recurrent import Cell, RecurrentBody

__all__ = ["Cell", "FeedForwardBody", "LanguageModel", "RecurrentBody"]
