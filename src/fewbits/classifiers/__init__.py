"""Classifiers: what turns a hidden state into words."""

from fewbits.classifiers.adaptive import AdaptiveSoftmax, default_cutoffs
from fewbits.classifiers.class_based import ClassSoftmax
from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.integer import IntegerSoftmax, integer_exp, integer_softmax
from fewbits.classifiers.logits_processor import MaxShiftProcessor
from fewbits.classifiers.max_shift import Gradient, IntegerMaxShift, MaxShift
from fewbits.classifiers.series import Logarithm, PowerSoftmax, TaylorSoftmax, exponential_series, logarithm_series
from fewbits.classifiers.shifts import Constant, CountAbove, Fitted, Shift, TopBit, TopMargin, log2_of_sum
from fewbits.classifiers.softmax import Softmax
from fewbits.classifiers.temperature import fit_temperature
from fewbits.classifiers.word_classes import cluster_classes, frequency_classes

__all__ = [
    "AdaptiveSoftmax",
    "ClassSoftmax",
    "Classifier",
    "Constant",
    "CountAbove",
    "Fitted",
    "Gradient",
    "IntegerMaxShift",
    "IntegerSoftmax",
    "Logarithm",
    "MaxShift",
    "MaxShiftProcessor",
    "PowerSoftmax",
    "Shift",
    "Softmax",
    "TaylorSoftmax",
    "TopBit",
    "TopMargin",
    "cluster_classes",
    "default_cutoffs",
    "exponential_series",
    "fit_temperature",
    "frequency_classes",
    "integer_exp",
    "integer_softmax",
    "log2_of_sum",
    "logarithm_series",
]
