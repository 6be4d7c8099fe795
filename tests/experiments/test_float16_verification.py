"""Chunks, checkpoints and deadlines of the mass verification, on an operation that costs nothing."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fewbits.errors import FewbitsError
from fewbits.experiments.float16 import cases, verification
from fewbits.experiments.float16.verification import Chunk, Progress, verify
from fewbits.study.run import Context
from fewbits.training.loop import OutOfTime

CASES, SIZE = 1000, 64


def context(checkpoint: Path | None = None, deadline: float = math.inf) -> Context:
    return Context("cpu", checkpoint, deadline, 500, False)


def squares(a: cases.Bits) -> tuple[cases.Bits, cases.Bits]:
    """The squares modulo 251, of which those of 300, 301 and 700 are wrong."""
    right = a * a % np.uint32(251)
    return right + np.isin(a, [300, 301, 700]).astype(np.uint32), right


def chunks(compare: verification.Compare = squares) -> list[Chunk]:
    return [(draw, compare) for draw in cases.given(SIZE, np.arange(CASES, dtype=np.uint32))]


WHOLE = verify(chunks(), context(), "squares", "squares")


def test_all_cases_are_counted_and_the_first_mismatch_is_told() -> None:
    assert (WHOLE.cases, WHOLE.mismatches, WHOLE.chunks) == (CASES, 3, 16)
    right = 300 * 300 % 251
    assert WHOLE.first_mismatch == f"0x0000012c: got 0x{right + 1:08x}, expected 0x{right:08x}"


def test_the_digest_is_a_chain_over_the_results() -> None:
    digest = b""
    for draw, compare in chunks():
        digest = hashlib.sha256(digest + compare(*draw())[0].tobytes()).digest()
    assert WHOLE.digest == digest.hex()


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(verification, "SLICE", size)
    assert verify(chunks(), context(), "squares", "squares") == WHOLE


def test_slices_of_a_chunk_are_compared_on_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slices that wait for each other, and an oracle that divides by zero without a word."""
    import threading

    barrier = threading.Barrier(2, timeout=30)

    def meeting(a: cases.Bits) -> tuple[cases.Bits, cases.Bits]:
        barrier.wait()
        np.float16(1) / np.zeros(1, np.float16)
        return a, a

    monkeypatch.setattr(verification, "SLICE", SIZE // 2)
    monkeypatch.setattr(verification.torch, "get_num_threads", lambda: 2)
    assert verify(chunks(meeting)[:3], context(), "", "").cases == 3 * SIZE


@pytest.mark.parametrize("stop", [0, 1, 5, 15])
def test_an_error_loses_the_chunk_that_it_happened_in(tmp_path: Path, stop: int) -> None:
    """Whatever ends it, the next start goes on behind the last whole chunk and ends with the same result."""
    checkpoint, compared = tmp_path / "deep" / "checkpoint", []

    def stopping(a: cases.Bits) -> tuple[cases.Bits, cases.Bits]:
        if len(compared) == stop:
            compared.append(-1)
            raise KeyboardInterrupt
        compared.append(int(a[0]))
        return squares(a)

    with pytest.raises(KeyboardInterrupt):
        verify(chunks(stopping), context(checkpoint), "squares", "squares")
    assert checkpoint.exists() == (stop > 0)
    assert verify(chunks(stopping), context(checkpoint), "squares", "squares") == WHOLE
    assert [first for first in compared if first >= 0] == [*range(0, CASES, SIZE)], "none twice"


def test_the_deadline_stops_behind_a_chunk(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    for done in range(1, 16):
        with pytest.raises(OutOfTime, match="run the same command again"):
            verify(chunks(), context(checkpoint, deadline=time.monotonic()), "squares", "squares")
        assert json.loads(checkpoint.read_text())["progress"]["chunks"] == done
    found = verify(chunks(), context(checkpoint, deadline=time.monotonic()), "squares", "squares")
    assert found == WHOLE, "what is done with its last chunk is not out of time"


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    with pytest.raises(OutOfTime):
        verify(chunks(), context(path, deadline=0), "squares", "squares")
    return path


@pytest.mark.parametrize("identity", ["squares ", "cubes"])
def test_what_another_verification_left_is_refused(tmp_path: Path, identity: str) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(
        FewbitsError, match=r"is no checkpoint of this verification .*Delete it to start anew"
    ) as caught:
        verify(chunks(), context(path), identity, "squares")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_every_damage_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    damaged = [content[:size] for size in range(len(content))]
    damaged += [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    damaged += [b"\xff\xfe", b"[]", b"null", b'{"progress": 1, "sha256": ""}', content + b"x"]
    for each in damaged:
        path.write_bytes(each)
        with pytest.raises(FewbitsError, match="is no checkpoint of this verification"):
            verify(chunks(), context(path), "squares", "squares")


def test_an_oracle_of_another_shape_or_type_is_an_error_of_ours() -> None:
    for expected in (np.zeros(3, np.uint8), np.zeros(4, np.uint16)):
        with pytest.raises(ValueError, match="got uint8"):
            Progress().after((np.zeros(4, np.uint8),), np.zeros(4, np.uint8), expected)


def test_negative_results_are_written_as_such() -> None:
    operands = (np.array([1], np.uint8), np.array([2], np.uint16))
    progress = Progress().after(operands, np.array([-1], np.int16), np.array([258], np.int16))
    assert progress.first_mismatch == "0x01, 0x0002: got -0x0001, expected 0x0102"


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_float16_verification import chunks, context, squares, verify

def slowly(a):
    time.sleep(0.02)
    return squares(a)

verify(chunks(slowly), context(Path(sys.argv[2])), "squares", "squares")
"""


def test_killed_at_any_moment_it_ends_with_the_same_result(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(checkpoint)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.001)
        time.sleep(0.07)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it was done before the kill"
    done = json.loads(checkpoint.read_text())["progress"]["chunks"]
    assert 1 <= done < 16
    compared = []

    def counting(a: cases.Bits) -> tuple[cases.Bits, cases.Bits]:
        compared.append(int(a[0]))
        return squares(a)

    assert verify(chunks(counting), context(checkpoint), "squares", "squares") == WHOLE
    assert compared == [*range(done * SIZE, CASES, SIZE)]
