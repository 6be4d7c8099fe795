"""Quantizers: one idea a file. Each turns a tensor into integer codes and gives it a gradient."""

from fewbits.quantizers.binary import Binary, Rounding, Scale
from fewbits.quantizers.binary_codes import BinaryCodes, Solver
from fewbits.quantizers.codebook import Codebook, Start
from fewbits.quantizers.estimators import ClippedStraightThrough, Estimator, SoftStaircase, StraightThrough
from fewbits.quantizers.fixed import Fixed
from fewbits.quantizers.granularity import Granularity, PerGate, PerGroup, PerRow, PerTensor
from fewbits.quantizers.least_squares import LeastSquaresTernary
from fewbits.quantizers.logarithmic import Logarithmic
from fewbits.quantizers.mid_rise import Balanced, MidRise
from fewbits.quantizers.notation import parse
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ranges import Given, LeastError, MinMax, MovingAverage, Percentile, Range
from fewbits.quantizers.ternary import TWN, Ternary
from fewbits.quantizers.trained_ternary import TTQ
from fewbits.quantizers.uniform import Uniform

__all__ = [
    "TTQ",
    "TWN",
    "Balanced",
    "Binary",
    "BinaryCodes",
    "ClippedStraightThrough",
    "Codebook",
    "Estimator",
    "Fixed",
    "Given",
    "Granularity",
    "LeastError",
    "LeastSquaresTernary",
    "Logarithmic",
    "MidRise",
    "MinMax",
    "MovingAverage",
    "PerGate",
    "PerGroup",
    "PerRow",
    "PerTensor",
    "Percentile",
    "Quantizer",
    "Range",
    "Rounding",
    "Scale",
    "SoftStaircase",
    "Solver",
    "Start",
    "StraightThrough",
    "Ternary",
    "Uniform",
    "parse",
]
