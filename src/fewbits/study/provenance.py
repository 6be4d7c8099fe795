"""Where and how a record was made."""

import contextlib
import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fewbits import project
from fewbits.study.records import Provenance


def collect(commit: str, device: str, seconds: float, data: dict[str, str], more: dict[str, Any]) -> Provenance:
    """Return the provenance of a run on ``device``, "cpu" or "cuda", that has just ended after ``seconds``.

    Args:
        commit: :func:`commit` when the run began; the tree may have moved on since.
        device: "cpu" or "cuda".
        seconds: wall time.
        data: source of each data set that was read.
        more: what the experiment adds.
    """
    names: dict[str, Any] = {name: version(name) for name in ("torch", "numpy", "fewbits")}
    cuda = device == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Provenance(
        commit=commit,
        device=torch.cuda.get_device_name() if cuda else f"{processor()}, {torch.get_num_threads()} threads",
        wall_seconds=round(seconds, 1),
        peak_memory_bytes=peak,
        versions={"python": platform.python_version(), **names},
        data=data,
        **more,
    )


def commit() -> str:
    """Return the short hash of the commit that is checked out, with ``+changes`` if ``src`` differs from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", os.fspath(project.root()), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changes = "+changes" if git("status", "--porcelain", "src") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changes


def processor() -> str:
    """Return the name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
