"""Models: a body that reads words and a classifier that says which comes next; and a network for images."""

from fewbits.models.conv_seq2seq import ConvSeq2Seq
from fewbits.models.convolutional import ConvolutionalNetwork
from fewbits.models.feed_forward import FeedForwardBody
from fewbits.models.gatewise import Backward, GatewiseLSTM, Normalisation
from fewbits.models.language_model import LanguageModel, recurrent_language_model
from fewbits.models.recurrent import Cell, RecurrentBody
from fewbits.models.seq2seq import Seq2Seq, padded
from fewbits.models.transformer import Sharing, Transformer
from fewbits.models.translator import Translator

__all__ = [
    "Backward",
    "Cell",
    "ConvSeq2Seq",
    "ConvolutionalNetwork",
    "FeedForwardBody",
    "GatewiseLSTM",
    "LanguageModel",
    "Normalisation",
    "RecurrentBody",
    "Seq2Seq",
    "Sharing",
    "Transformer",
    "Translator",
    "padded",
    "recurrent_language_model",
]
