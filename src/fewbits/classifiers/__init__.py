"""Classifiers: what turns a hidden state into words."""

from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.softmax import Softmax

__all__ = ["Classifier", "Softmax"]
