"""Quantizers: one idea a file. Each turns a tensor into integer codes and gives it a gradient."""

from fewbits.quantizers.binary import Binary, Rounding, Scale
from fewbits.quantizers.binary_codes import BinaryCodes, Solver
from fewbits.quantizers.codebook import Codebook, Start
from fewbits.quantizers.estimators import ClippedStraightThrough, Estimator, StraightThrough
from fewbits.quantizers.fixed import Fixed
from fewbits.quantizers.granularity import Granularity, PerGate, PerGroup, PerRow, PerTensor
from fewbits.quantizers.least_squares import LeastSquaresTernary
from fewbits.quantizers.logarithmic import Logarithmic
from fewbits.quantizers.notation import parse
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ternary import TWN, Ternary
from fewbits.quantizers.uniform import Uniform

__all__ = [
    "TWN",
    "Binary",
    "BinaryCodes",
    "ClippedStraightThrough",
    "Codebook",
    "Estimator",
    "Fixed",
    "Granularity",
    "LeastSquaresTernary",
    "Logarithmic",
    "PerGate",
    "PerGroup",
    "PerRow",
    "PerTensor",
    "Quantizer",
    "Rounding",
    "Scale",
    "Solver",
    "Start",
    "StraightThrough",
    "Ternary",
    "Uniform",
    "parse",
]
