"""Language models on few bits: number formats, quantizers, models, runs and comparisons.

Importing the package imports nothing heavy: take what you need from its rooms, for example
``from fewbits.quantize import quantize`` and ``from fewbits.quantizers import TWN``.
"""

__version__ = "0.1.0"
