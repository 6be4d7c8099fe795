"""The mass verification: every check passes, and every check fails when one single result is wrong."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fewbits.errors import FewbitsError
from fewbits.experiments.float16 import Check, Float16, formats, rationals, runs
from fewbits.experiments.float16.formats import PRESETS
from fewbits.formats import FixedPoint, FloatFormat, RoundingMode, float16
from fewbits.study.profiles import Profile
from fewbits.study.records import full_records
from fewbits.study.run import Context, run
from fewbits.training.loop import OutOfTime

#: With operands of which 2^24 are drawn at random in CI, beside all special ones.
MANY = (Check.ENCODE, Check.ADD, Check.SUB, Check.MUL, Check.DIV, Check.FMA, Check.COMPARISONS)
MODES = len(rationals.OTHER_MODES)


def metrics(settings: Float16) -> dict[str, Any]:
    return run(settings, Profile.SMOKE, progress=False).result.metrics


def small(check: Check, **changes: Any) -> Float16:
    (settings,) = runs(Profile.SMOKE, checks=[check])
    return settings.model_copy(update=changes)


# --- every check passes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", MANY)
def test_millions_of_random_cases_and_all_special_ones_agree(check: Check) -> None:
    (settings,) = runs(Profile.LAPTOP, checks=[check])
    found = metrics(settings)
    assert found["cases"] > settings.cases == 2**24
    assert (found["mismatches"], found["first_mismatch"]) == (0, None)


@pytest.mark.parametrize("check", [check for check in Check if check not in MANY])
def test_every_other_check_finds_no_mismatch(check: Check) -> None:
    found = metrics(small(check))
    assert (found["mismatches"], found["first_mismatch"]) == (0, None)


def test_the_number_of_cases_is_what_is_said() -> None:
    special = 58
    expected = {
        Check.DECODE: 2**16,
        Check.SQRT: 2**16,
        Check.ADD: special**2 + 2**16,
        Check.FMA: special**3 + 2**16,
        Check.FMA_RATIONAL: 2 * 2**9,
        Check.MODES: 7 * MODES * 2 * 2**4,
        Check.BFLOAT16: 3 * 2**16,
        Check.FLOAT8_E5M2: 2**8 + 2 * 2**16,
        Check.FLOAT4_E2M1FN: 2**4 + 2 * 2**16 - 2 * 1023 - 2 * 127,  # without NaN
        Check.FIXED_POINT: (14 * 2**6 + 3 * 13 + 5) * 2 * 5,  # k = 2 has no 64 points
    }
    for check, number in expected.items():
        assert metrics(small(check))["cases"] == number, check


@pytest.mark.parametrize("check", [Check.ENCODE, Check.ADD, Check.COMPARISONS])
def test_all_cases_are_every_word_once(check: Check) -> None:
    chunks = Float16(check=check, chunk=2**17).chunks()
    assert len(chunks) == 2**15
    for at in (0, 1, 20_000, 2**15 - 1):
        *high, low = chunks[at][0]()
        words = low + sum(each.astype(np.uint32) << np.uint32(16) for each in high)
        assert (words == np.arange(at << 17, (at + 1) << 17, dtype=np.uint32)).all()


@pytest.mark.parametrize("check", [Check.FMA, Check.FMA_RATIONAL])
def test_every_second_random_triple_of_a_check_cancels(check: Check) -> None:
    a, b, c = (each[::2] for each in small(check).chunks()[-1][0]())
    with np.errstate(all="ignore"):
        product = (a.view(np.float16) * b.view(np.float16)).view(np.uint16)
    assert (np.abs((c - (product ^ np.uint16(0x8000))).astype(np.int16)) <= 2).all()


# --- every check can fail --------------------------------------------------------------------------------------------


def wrong_at(real: Callable[..., Any], case: tuple[int, ...]) -> Callable[..., Any]:
    """The function ``real`` of arrays, with the last bit of its result changed for one case."""

    def wrong(*operands: Any, **settings: Any) -> Any:
        result = np.asarray(real(*operands, **settings))
        words = [np.asarray(each).view(np.dtype(f"u{each.itemsize}")) for each in operands]
        hit = np.logical_and.reduce([word == value for word, value in zip(words, case, strict=True)])
        bits = result.view(np.uint8) if result.dtype == bool else result.view(np.dtype(f"u{result.itemsize}"))
        return np.where(hit, bits ^ 1, bits).astype(bits.dtype).view(result.dtype)

    return wrong


def one_of(settings: Float16, chunk: int = 0, at: int = 0) -> tuple[int, ...]:
    """The operands of one case that the check draws."""
    return tuple(int(each[at]) for each in settings.chunks()[chunk][0]())


@pytest.mark.parametrize(
    ("check", "operation", "case", "message"),
    [
        (Check.DECODE, "to_float32", (0x3C01,), "0x00003c01: got 0x3f802001, expected 0x3f802000"),
        (Check.DECODE, "to_float32", (0x7C01,), "0x00007c01: got 0x7f802001, expected 0x7f802000"),  # NaN too
        (Check.ENCODE, "from_float32", (0x477FEFFF,), "0x477fefff: got 0x7bfe, expected 0x7bff"),
        (Check.ENCODE, "from_float32", (0x477FF000,), "0x477ff000: got 0x7c01, expected 0x7c00"),
        (Check.ADD, "add", (0x3C00, 0x0001), "0x3c00, 0x0001: got 0x3c01, expected 0x3c00"),
        (Check.SUB, "sub", (0x3C00, 0x3C00), "0x3c00, 0x3c00: got 0x0001, expected 0x0000"),
        (Check.MUL, "mul", (0x7BFF, 0x0001), "0x7bff, 0x0001: got 0x1bfe, expected 0x1bff"),
        (Check.DIV, "div", (0x3C00, 0x8000), "0x3c00, 0x8000: got 0x7e00, expected 0xfc00"),
        (Check.SQRT, "sqrt", (0x4000,), "0x00004000: got 0x3da9, expected 0x3da8"),
        (Check.FMA, "fma", (0x0001, 0x0001, 0x3C00), "0x0001, 0x0001, 0x3c00: got 0x3c01, expected 0x3c00"),
        (Check.COMPARISONS, "equal", (0x0000, 0x8000), "0x0000, 0x8000: got 0x28, expected 0x29"),
    ],
)
def test_one_wrong_result_is_one_mismatch(
    monkeypatch: pytest.MonkeyPatch, check: Check, operation: str, case: tuple[int, ...], message: str
) -> None:
    monkeypatch.setattr(float16, operation, wrong_at(getattr(float16, operation), case))
    found = metrics(small(check))
    assert (found["mismatches"], found["first_mismatch"]) == (1, message)


def test_one_wrong_result_is_a_mismatch_in_rationals(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small(Check.FMA_RATIONAL, cases=64)
    monkeypatch.setattr(float16, "fma", wrong_at(float16.fma, one_of(settings)))
    assert metrics(settings)["mismatches"] == 1


@pytest.mark.parametrize("operation", rationals.OPERANDS)
def test_one_wrong_result_is_a_mismatch_in_each_other_mode(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    settings = small(Check.MODES)
    chunk = [*rationals.OPERANDS].index(operation) * MODES * 2
    monkeypatch.setattr(float16, operation, wrong_at(getattr(float16, operation), one_of(settings, chunk)))
    assert metrics(settings)["mismatches"] == MODES


@pytest.mark.parametrize(
    ("flag", "operation"),
    [("invalid", "sqrt"), ("divide_by_zero", "div"), ("overflow", "fma"), ("underflow", "mul"), ("inexact", "add")],
)
def test_a_flag_that_is_never_raised_is_seen(monkeypatch: pytest.MonkeyPatch, flag: str, operation: str) -> None:
    real = float16.Counters.add

    def forgetful(self: float16.Counters, results: Any) -> None:
        real(self, results)
        setattr(self, flag, 0)

    monkeypatch.setattr(rationals, "OPERANDS", {operation: rationals.OPERANDS[operation]})
    assert metrics(small(Check.MODES, cases=200))["mismatches"] == 0
    monkeypatch.setattr(float16.Counters, "add", forgetful)
    assert metrics(small(Check.MODES, cases=200))["mismatches"] > 0


def wrong_tensor(real: Callable[..., torch.Tensor], word: int) -> Callable[..., torch.Tensor]:
    """The method ``real``, with the last bit of its result changed where the bits of its input are ``word``."""

    def wrong(self: object, x: torch.Tensor, *settings: Any) -> torch.Tensor:
        result = real(self, x, *settings).numpy()
        bits = x.numpy() if not x.dtype.is_floating_point else x.view(torch.int16).numpy().view(np.uint16)
        words = result.view(np.dtype(f"u{result.itemsize}"))
        return torch.from_numpy(np.where(bits == word, words ^ 1, words).astype(words.dtype).view(result.dtype))

    return wrong


@pytest.mark.parametrize("name", PRESETS)
def test_one_wrong_encoding_or_number_of_a_format_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    one = 0x3F80 if name == "float8_e8m0fnu" else 0x0001  # of zero and of tiny numbers E8M0 makes other things
    with monkeypatch.context() as patch:
        patch.setattr(FloatFormat, "encode", wrong_tensor(FloatFormat.encode, one))
        found = metrics(small(Check(name)))
        assert found["mismatches"] == 2, "one float16 and one bfloat16 input"
    monkeypatch.setattr(FloatFormat, "decode", wrong_tensor(FloatFormat.decode, 0x0001))
    assert metrics(small(Check(name)))["mismatches"] == 1


def test_one_wrong_code_of_a_fixed_point_format_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FixedPoint.encode

    def wrong(self: FixedPoint, x: torch.Tensor, mode: RoundingMode) -> torch.Tensor:
        hit = (x == 0.25) & (self.bits == 5) & (mode is RoundingMode.UP)
        return real(self, x, mode) + hit.to(torch.int32)

    monkeypatch.setattr(formats, "WIDTHS", [4, 5])
    monkeypatch.setattr(FixedPoint, "encode", wrong)
    assert metrics(small(Check.FIXED_POINT, cases=None))["mismatches"] == 2, "a float32 and a float64 number"


def test_one_wrong_power_of_two_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = formats.nearest_power_of_two
    monkeypatch.setattr(
        formats, "nearest_power_of_two", lambda x: torch.where(x == 2.0**-15 * 1.5, 2.0**-15, real(x)).to(x.dtype)
    )
    assert metrics(small(Check.SHIFT))["mismatches"] == 1


def test_stochastic_rounding_that_is_off_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # one more value of the random bits goes up
        real = formats.round_shift
        patch.setattr(formats, "round_shift", lambda *a, random, **k: real(*a, random=np.maximum(random - 1, 0), **k))
        assert metrics(small(Check.STOCHASTIC))["mismatches"] == sum(2**10 - 2 ** (10 - bits) for bits in range(9))
    real_round = FixedPoint.round

    def nearest(self: FixedPoint, x: torch.Tensor, mode: RoundingMode, *rest: Any) -> torch.Tensor:
        return real_round(self, x, RoundingMode.NEAREST_EVEN if mode is RoundingMode.STOCHASTIC else mode, *rest)

    monkeypatch.setattr(FixedPoint, "round", nearest)
    assert metrics(small(Check.STOCHASTIC))["mismatches"] == 120, "all but the numbers of the format"


# --- configuration, digest -------------------------------------------------------------------------------------------


def test_full_is_exhaustive() -> None:
    full = {each.check: each for each in runs(Profile.FULL)}
    assert [*full] == [*Check]
    drawn = {check: each.cases for check, each in full.items() if each.cases is not None}
    assert drawn == {
        Check.FMA: 2**28,
        Check.FMA_RATIONAL: 10**6,
        Check.MODES: 2**15,
        Check.SHIFT: 2**20,
        Check.STOCHASTIC: 2**16,
    }


def test_nothing_is_left_out() -> None:
    ours = {
        name for name, (_, kind) in PRESETS.items() if hasattr(ml_dtypes, name) and kind == getattr(ml_dtypes, name)
    }
    assert ours == {name for name in dir(ml_dtypes) if re.match(r"b?float\d", name)}
    assert {*PRESETS} - ours == {"binary16"}
    assert {*rationals.OTHER_MODES} == {*RoundingMode} - {RoundingMode.NEAREST_EVEN, RoundingMode.STOCHASTIC}
    assert {*formats._PYTHON} == {*RoundingMode} - {RoundingMode.STOCHASTIC}
    assert [*formats.WIDTHS] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


@pytest.mark.parametrize(
    "field",
    [{"check": "ad"}, {"check": "add", "case": 1}, {"check": "add", "cases": 0}, {"check": "add", "chunk": 0}],
)
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Float16.model_validate(field)


def test_all_triples_are_too_many() -> None:
    with pytest.raises(ValidationError, match="cases of fma are too many to do all; give `cases`"):
        Float16(check=Check.FMA)


def test_the_same_run_gives_the_same_result_and_another_seed_other_cases() -> None:
    first = metrics(small(Check.ADD, chunk=9_999))
    assert metrics(small(Check.ADD, chunk=9_999)) == first
    assert metrics(small(Check.ADD, chunk=9_999, seed=1))["digest"] != first["digest"]


def test_the_digest_is_that_of_numpys_results() -> None:
    """What another machine, with another implementation, must give."""
    patterns = np.arange(2**16).astype(np.uint16)
    with np.errstate(all="ignore"):
        roots = np.sqrt(patterns.view(np.float16)).view(np.uint16)
    roots[np.isnan(roots.view(np.float16))] = 0x7E00
    first = hashlib.sha256(roots[:50_000].tobytes()).digest()
    assert (
        metrics(small(Check.SQRT, chunk=50_000))["digest"]
        == hashlib.sha256(first + roots[50_000:].tobytes()).hexdigest()
    )


def test_a_record_says_which_source_it_proves(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small(Check.SQRT)
    record = run(settings, Profile.SMOKE, progress=False)
    assert settings.proves(record)
    monkeypatch.setattr(Float16, "source", lambda self: "0" * 64)
    assert not settings.proves(record)


def test_a_checkpoint_of_other_source_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = small(Check.SQRT, chunk=10_000)
    late = Context("cpu", tmp_path / "checkpoint", deadline=0, checkpoint_every=1, progress=False)
    with pytest.raises(OutOfTime):
        settings.compute(late)
    with pytest.raises(FewbitsError, match="is no checkpoint of this verification"):
        settings.model_copy(update={"seed": 1}).compute(late)
    monkeypatch.setattr(Float16, "source", lambda self: "0" * 64)
    with pytest.raises(FewbitsError, match="or of other source code"):
        settings.compute(late)


def test_a_check_knows_the_files_that_it_verifies() -> None:
    sources = {check: small(check).source() for check in Check}
    assert sources[Check.ADD] == sources[Check.MODES] != sources[Check.FIXED_POINT] == sources[Check.BFLOAT16]
    assert len(set(sources.values())) == 2


def test_all_checks_are_done_but_at_smoke_and_the_seed_can_be_chosen() -> None:
    for profile in (Profile.LAPTOP, Profile.FULL):
        assert [each.check for each in runs(profile)] == list(Check)
    assert {each.check for each in runs(Profile.SMOKE)} < set(Check)
    assert runs(Profile.SMOKE, checks=[Check.MODES])[0].check is Check.MODES
    assert {each.seed for each in runs(Profile.LAPTOP, seed=3)} == {3}


def test_the_committed_records_prove_the_source_that_is_here() -> None:
    """After a change of the formats: `fewbits verify float16`, once the records of other source are deleted."""
    stored = {record.result.config["check"]: record for record in full_records("float16")}
    assert {*stored} == {*Check}
    assert not [str(each.check) for each in runs(Profile.FULL) if not each.proves(stored[each.check])]
