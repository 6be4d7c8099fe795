"""What importing the package costs and touches, measured in a fresh interpreter."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROGRAM = """
import json, random, socket, sys, time
import numpy, torch

def refuse(*_, **__):
    raise AssertionError("importing the package opened a socket")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
state = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
settings = lambda: (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
before, start = (state(), settings()), time.process_time()
import fewbits, fewbits.quantizers, fewbits.quantize
seconds = time.process_time() - start
print(json.dumps({
    "seconds": seconds,
    "untouched": before == (state(), settings()),
    "cuda": torch.cuda.is_initialized(),
}))
"""


def measured() -> dict[str, float | bool]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    found: dict[str, float | bool] = json.loads(done.stdout)
    return found


def test_the_import_is_light_and_touches_nothing() -> None:
    # Processor time, not wall time, and up to three trials: other tests run beside this one.
    for _ in range(3):
        found = measured()
        assert found["untouched"]
        assert not found["cuda"]
        if found["seconds"] <= 0.3:
            return
    raise AssertionError(f"importing the package takes {found['seconds']:.2f} s beyond torch's own import")


def test_every_package_that_the_source_imports_is_a_dependency() -> None:
    root = Path(__file__).parents[1]
    named = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    dependencies = {re.split(r"[<>=\[]", each)[0].lower().replace("_", "-") for each in named}
    imported = set()
    for path in (root / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    outside = imported - set(sys.stdlib_module_names) - {"fewbits"}
    known = {module: {name.lower().replace("_", "-") for name in distributions[module]} for module in outside}
    assert len(known) > 10
    assert {module for module, names in known.items() if not names & dependencies} == set()
