"""The Slurm profile up to the moment in which a job is handed over: a stand-in takes the place of ``sbatch``."""

import os
import subprocess
import sys
from pathlib import Path

from fewbits import project


def test_a_full_run_is_handed_to_slurm_with_the_partition_of_the_profile(tmp_path: Path) -> None:
    for name in ("workflow", "src", "data", "notebooks", "book", "_config.yml", "_toc.yml"):
        (tmp_path / name).symlink_to(project.root() / name)
    noted = tmp_path / "sbatch.txt"
    for tool, action in {
        "sbatch": f'printf "%s\\n" "$@" > {noted}; exit 1',
        "sinfo": "echo main",
        "sacct": "exit 1",
    }.items():
        path = tmp_path / "bin" / tool
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{action}\n")
        path.chmod(0o755)
    target = "_build/full/ptb-lstm-float-seed0.done"
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--profile", "workflow/slurm"]
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, target], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert noted.exists(), done.stderr[-2000:]
    given = noted.read_text()
    assert "main" in given
    assert "ptb-lstm-float-seed0" in given
