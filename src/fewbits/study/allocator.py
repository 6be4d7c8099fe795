"""Memory that is used again instead of given back to the system after each operation."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_KEPT, _STEP = 2**30, 2**26  # bytes


@cache
def keep_freed_memory() -> bool:
    """Make this process keep what it frees, for its next tensors; return whether the system's allocator can do that.

    glibc gives each block of over 32 MiB back to the system when it is freed, and the end of the heap as well. The
    scores of a batch over a vocabulary are such a block: the next ones come as new pages, which the system clears one
    by one. Kept are blocks of up to 1 GiB each, which costs memory that other processes might use. Where the C library
    is not glibc nothing is changed.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    wanted = ((_M_MMAP_THRESHOLD, _KEPT), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _STEP))
    return change is not None and all(change(what, size) == 1 for what, size in wanted)
