"""Quantizers: one idea a file. Each turns a tensor into integer codes and gives it a gradient."""

from fewbits.quantizers.binary import Binary, Rounding, Scale
from fewbits.quantizers.estimators import ClippedStraightThrough, Estimator, StraightThrough
from fewbits.quantizers.granularity import Granularity, PerGate, PerGroup, PerRow, PerTensor
from fewbits.quantizers.notation import parse
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ternary import TWN, Ternary
from fewbits.quantizers.uniform import Uniform

__all__ = [
    "TWN",
    "Binary",
    "ClippedStraightThrough",
    "Estimator",
    "Granularity",
    "PerGate",
    "PerGroup",
    "PerRow",
    "PerTensor",
    "Quantizer",
    "Rounding",
    "Scale",
    "StraightThrough",
    "Ternary",
    "Uniform",
    "parse",
]
