"""Case by case: what an implementation gives beside what an oracle expects, in chunks, resumable between them."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from tqdm import tqdm

from fewbits import atomic
from fewbits.errors import FewbitsError
from fewbits.experiments.float16.cases import Bits, Draw, Operands
from fewbits.study.run import Context
from fewbits.training.loop import OutOfTime

#: Gives for the operands of a draw what the implementation makes of them, and what the oracle does. Where any NaN is as
#: good as another, both hold one and the same.
Compare: TypeAlias = Callable[..., tuple[Bits, Bits]]
Chunk: TypeAlias = tuple[Draw, Compare]
SLICE = 2**17  #: cases that are compared at a time: so many stay in the processor's cache


@dataclass(frozen=True)
class Progress:
    """How far a verification is, and what it found."""

    chunks: int = 0  #: done
    cases: int = 0
    mismatches: int = 0
    first_mismatch: str | None = None
    digest: str = ""  #: SHA-256 over the digest before and the result bits of the chunk, in hexadecimal

    def after(self, operands: Operands, got: Bits, expected: Bits) -> "Progress":
        """Return the progress when one more chunk is counted, with these operands and results."""
        if (got.shape, got.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"got {got.dtype}{got.shape}, expected {expected.dtype}{expected.shape}")
        wrong = np.flatnonzero(got != expected)
        first = self.first_mismatch
        if first is None and len(wrong):
            first = _words(operands, got, expected, int(wrong[0]))
        digest = hashlib.sha256(bytes.fromhex(self.digest))
        digest.update(np.ascontiguousarray(got).data)
        return Progress(self.chunks + 1, self.cases + got.size, self.mismatches + len(wrong), first, digest.hexdigest())


def _words(operands: Operands, got: Bits, expected: Bits, at: int) -> str:
    words = ", ".join(_hexadecimal(each[at]) for each in operands)
    return f"{words}: got {_hexadecimal(got[at])}, expected {_hexadecimal(expected[at])}"


def _hexadecimal(bits: Any) -> str:
    return f"{'-' if bits < 0 else ''}0x{abs(int(bits)):0{2 * bits.itemsize}x}"


def verify(chunks: Sequence[Chunk], context: Context, identity: str, label: str) -> Progress:
    """Compare the cases of all ``chunks`` in order, and return what was found.

    After each chunk the progress goes to ``context.checkpoint``; a verification that was stopped, or killed at any
    moment, goes on behind the last whole chunk and ends with the same result.

    Args:
        chunks: which cases, and how they are compared.
        context: where the checkpoint is, and when to stop.
        identity: of the cases and the code that is verified; what another one left is refused.
        label: what the progress bar shows.

    Raises:
        FewbitsError: If the checkpoint is damaged or another verification's, or cannot be written.
        OutOfTime: If the deadline passed.
    """
    progress = _load(context.checkpoint, identity)
    first, quiet = progress.chunks, not context.progress
    rest = tqdm(chunks[first:], label, len(chunks), initial=first, leave=False, disable=quiet, mininterval=1)
    for draw, compare in rest:
        operands = draw()
        progress = progress.after(operands, *_in_slices(compare, operands))
        if context.checkpoint is not None:
            atomic.write(context.checkpoint, _dump(progress, identity))
        if progress.chunks < len(chunks) and time.monotonic() > context.deadline:
            raise OutOfTime("the time budget is used up; run the same command again to go on from the checkpoint.")
    return progress


def _in_slices(compare: Compare, operands: Operands) -> tuple[Bits, Bits]:
    """Compare slice by slice, on as many threads as torch has: neither the operations nor NumPy have several."""
    starts = range(0, len(operands[0]), SLICE)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = [
            *pool.map(lambda start: _silently(compare, [each[start : start + SLICE] for each in operands]), starts)
        ]
    return np.concatenate([got for got, _ in parts]), np.concatenate([expected for _, expected in parts])


def _silently(compare: Compare, operands: list[Bits]) -> tuple[Bits, Bits]:
    with np.errstate(all="ignore"):  # set here, as it holds for one thread
        return compare(*operands)


def _dump(progress: Progress, identity: str) -> str:
    return json.dumps({"progress": asdict(progress), "sha256": _seal(asdict(progress), identity)})


def _seal(progress: dict[str, Any], identity: str) -> str:
    return hashlib.sha256(json.dumps([progress, identity], sort_keys=True).encode()).hexdigest()


def _load(path: Path | None, identity: str) -> Progress:
    if path is None or not path.exists():
        return Progress()
    try:
        saved = json.loads(path.read_bytes())
        if saved["sha256"] != _seal(saved["progress"], identity):
            raise ValueError("it was changed, or is of other cases or of other source code")
        return replace(Progress(), **saved["progress"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FewbitsError(
            f"{path} is no checkpoint of this verification ({error}). Delete it to start anew."
        ) from error
