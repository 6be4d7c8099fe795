"""Quantizers as text and back: what a notebook parameter, a record and a model card hold."""

import ast
from typing import Any

from fewbits.errors import FewbitsError
from fewbits.quantizers.binary import Binary, Rounding, Scale
from fewbits.quantizers.binary_codes import BinaryCodes, Solver
from fewbits.quantizers.codebook import Codebook, Start
from fewbits.quantizers.estimators import ClippedStraightThrough, SoftStaircase, StraightThrough
from fewbits.quantizers.fixed import Fixed
from fewbits.quantizers.granularity import PerGate, PerGroup, PerRow, PerTensor
from fewbits.quantizers.least_squares import LeastSquaresTernary
from fewbits.quantizers.logarithmic import Logarithmic
from fewbits.quantizers.mid_rise import Balanced, MidRise
from fewbits.quantizers.quantizer import Quantizer
from fewbits.quantizers.ranges import Given, LeastError, MinMax, MovingAverage, Percentile
from fewbits.quantizers.ternary import TWN, Ternary
from fewbits.quantizers.trained_ternary import TTQ
from fewbits.quantizers.uniform import Uniform

WORDS: dict[str, Any] = {
    word.__name__: word
    for word in (
        Binary, Ternary, TWN, LeastSquaresTernary, TTQ, Uniform, MidRise, Balanced, Logarithmic, Fixed,
        BinaryCodes, Codebook,
        Scale, Rounding, Solver, Start, MinMax, Percentile, LeastError, Given, MovingAverage,
        PerTensor, PerRow, PerGroup, PerGate, StraightThrough, ClippedStraightThrough, SoftStaircase,
    )
}  # fmt: skip


def parse(text: str) -> Quantizer:
    """Return the quantizer that ``text`` writes, in the notation of ``repr``; nothing is evaluated but these words.

    >>> parse("Uniform(4, PerRow())")
    Uniform(bits=4, granularity=PerRow(), symmetric=True, range=MinMax(), estimator=StraightThrough())

    Raises:
        FewbitsError: If the text is no quantizer; the message lists the words that can be used.
    """
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, KeyError, TypeError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        words = ", ".join(sorted(WORDS))
        raise FewbitsError(f"{text!r} writes no quantizer ({error}); the words are {words}.") from error
    if not isinstance(value, Quantizer):
        raise FewbitsError(f"{text!r} writes a {type(value).__name__}, not a quantizer, for example TWN(PerGate()).")
    return value


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=word), args=args, keywords=keywords):
            return WORDS[word](*map(_value, args), **{str(k.arg): _value(k.value) for k in keywords})
        case ast.Attribute(value=ast.Name(id=word), attr=member):  # of an enum; anything else has no members
            return WORDS[word][member]
        case _:
            return ast.literal_eval(node)
