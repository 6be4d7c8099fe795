"""The number formats against independent oracles, case by case: mass verification (claims M1 and W2)."""

import hashlib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from fewbits import formats as verified
from fewbits.experiments.float16 import formats, operations, rationals
from fewbits.experiments.float16.cases import Size
from fewbits.experiments.float16.formats import PRESETS
from fewbits.experiments.float16.operations import PAIRS
from fewbits.experiments.float16.verification import Chunk, verify
from fewbits.study.profiles import Profile
from fewbits.study.records import Record
from fewbits.study.run import Computed, Configuration, Context


class Check(StrEnum):
    """What is verified."""

    DECODE = "decode"  #: float16 to float32: all patterns
    ENCODE = "encode"  #: float32 to float16: all 2^32
    ADD = "add"  #: all pairs
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    SQRT = "sqrt"  #: all patterns
    FMA = "fma"  #: special and random triples, by an error-free transformation
    FMA_RATIONAL = "fma_rational"  #: special and random triples, in exact rationals
    COMPARISONS = "comparisons"  #: =, ≠, <, ≤, >, ≥ of all pairs
    MODES = "modes"  #: the other four rounding modes and all flags, in exact rationals
    BINARY16 = "binary16"  #: this and the following: a ``FloatFormat``, all encodings and inputs
    BFLOAT16 = "bfloat16"
    FLOAT8_E3M4 = "float8_e3m4"
    FLOAT8_E4M3 = "float8_e4m3"
    FLOAT8_E4M3B11FNUZ = "float8_e4m3b11fnuz"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8_E8M0FNU = "float8_e8m0fnu"
    FLOAT6_E2M3FN = "float6_e2m3fn"
    FLOAT6_E3M2FN = "float6_e3m2fn"
    FLOAT4_E2M1FN = "float4_e2m1fn"
    FIXED_POINT = "fixed_point"  #: WAGE's Q
    SHIFT = "shift"  #: WAGE's Shift
    STOCHASTIC = "stochastic"  #: stochastic rounding: its mean


class Float16(Configuration):
    """One check: what an operation gives beside what its oracle gives, over all cases or special and random ones.

    Metrics: ``cases`` compared, ``mismatches`` among them, ``first_mismatch`` (operands and both results), and
    ``digest``, a chain of SHA-256 over all results, by which two machines can be compared.
    """

    experiment: ClassVar[str] = "float16"
    version: ClassVar[int] = 1
    processor_only: ClassVar[bool] = True

    check: Check
    cases: int | None = Field(None, ge=1)  #: random ones, beside all special ones; None: all there are
    chunk: int = Field(2**24, ge=1)  #: cases between two checkpoints
    seed: int = 0  #: of the random cases

    @model_validator(mode="after")
    def _enough_for_all(self) -> Self:
        if self.cases is None and self.check in _NEVER_ALL:
            raise ValueError(f"the cases of {self.check} are too many to do all; give `cases`, how many random ones")
        return self

    @property
    def name(self) -> str:
        """The check."""
        return f"verify-{self.check}"

    def data_hashes(self) -> dict[str, str]:
        """Return nothing: no data is read."""
        return {}

    def compute(self, context: Context) -> Computed:
        """Compare all cases, chunk by chunk."""
        source = self.source()
        found = verify(self.chunks(), context, f"{self.model_dump_json()} {self.version} {source}", str(self.check))
        metrics: dict[str, Any] = {
            "cases": found.cases,
            "mismatches": found.mismatches,
            "first_mismatch": found.first_mismatch,
            "digest": found.digest,
        }
        return Computed(metrics, [], {}, {}, provenance={"source_sha256": source})

    def chunks(self) -> list[Chunk]:
        """Return the cases and how they are compared."""
        size = Size(self.cases, self.chunk, self.seed)
        if self.check in PRESETS:
            return formats.preset(self.check, size)
        if self.check in PAIRS:
            return operations.pairs(self.check, size)
        return _CHECKS[self.check](size)

    def source(self) -> str:
        """Return the SHA-256 of the source files that are verified: a record is a proof of these, and of no others."""
        folder = Path(verified.__file__).parent
        digest = hashlib.sha256()
        for path in sorted(path for name in _source(self.check) for path in folder.glob(name)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def proves(self, record: Record) -> bool:
        """Return whether ``record`` was made of the source code that is here."""
        return (record.provenance.model_extra or {}).get("source_sha256") == self.source()


def _source(check: Check) -> tuple[str, ...]:
    """Name the files of ``fewbits.formats`` that ``check`` verifies."""
    if check in (*PRESETS, Check.FIXED_POINT, Check.SHIFT, Check.STOCHASTIC):
        return "rounding.py", "float_parts.py", "float_format.py", "fixed_point.py", "power_of_two.py"
    return "rounding.py", "float16/*.py"


_CHECKS: dict[Check, Callable[[Size], list[Chunk]]] = {
    Check.DECODE: operations.decode,
    Check.ENCODE: operations.encode,
    Check.SQRT: operations.sqrt,
    Check.FMA: operations.fma,
    Check.FMA_RATIONAL: rationals.fma,
    Check.COMPARISONS: operations.comparisons,
    Check.MODES: rationals.modes,
    Check.FIXED_POINT: formats.fixed_point,
    Check.SHIFT: formats.shift,
    Check.STOCHASTIC: formats.stochastic,
}
_ALL_PAIRS = (2**16, 2**24, None)
#: Random cases at smoke, laptop and full, None being all there are. Checks that are not named here always do all.
_CASES: dict[Check, tuple[int | None, int | None, int | None]] = {
    **dict.fromkeys((Check.ENCODE, Check.ADD, Check.SUB, Check.MUL, Check.DIV, Check.COMPARISONS), _ALL_PAIRS),
    Check.FMA: (2**16, 2**24, 2**28),
    Check.FMA_RATIONAL: (2**9, 2**13, 10**6),
    Check.MODES: (2**4, 2**7, 2**15),
    Check.FIXED_POINT: (2**6, 2**12, None),
    Check.SHIFT: (2**10, 2**14, 2**20),
    Check.STOCHASTIC: (2**10, 2**12, 2**16),
}
_NEVER_ALL = [check for check, (_, _, full) in _CASES.items() if full is not None]
#: Checks whose oracle takes cases one by one: a chunk of them takes about as long as 2^24 cases of the others.
_ONE_BY_ONE = {Check.FMA_RATIONAL: 2**13, Check.MODES: 2**13, Check.FIXED_POINT: 2**18, Check.SHIFT: 2**15}


#: What smoke leaves out: most of their time would be compiling.
_NOT_AT_SMOKE = {Check.SUB, Check.DIV, Check.SQRT, Check.COMPARISONS, Check.FMA_RATIONAL, Check.MODES}


def runs(profile: Profile, *, checks: list[Check] | None = None, seed: int | None = None) -> list[Float16]:
    """Return the checks of a profile, in the order of :class:`Check`.

    Args:
        profile: full compares all cases; laptop 2^24 and smoke 2^16 random ones beside the special ones, fewer where
            the oracle is slow. Smoke leaves some checks out unless they are named.
        checks: only these, in this order.
        seed: of the random cases; 0 unless stated.
    """
    column = [Profile.SMOKE, Profile.LAPTOP, Profile.FULL].index(profile)
    if checks is None:
        checks = [check for check in Check if profile is not Profile.SMOKE or check not in _NOT_AT_SMOKE]
    return [
        Float16(
            check=check,
            cases=_CASES[check][column] if check in _CASES else None,
            chunk=_ONE_BY_ONE.get(check, 2**24),
            seed=seed or 0,
        )
        for check in checks
    ]
