"""What each quantizer can do: found by doing it when the book is built, not by what its documentation says."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor, nn

from fewbits import project, quantizers
from fewbits.errors import FewbitsError
from fewbits.quantize import PackedModel, pack, quantize, train_codebooks
from fewbits.quantizers import Codebook, Granularity, PerGate, PerGroup, PerRow, PerTensor, Quantizer, parse

#: One of each, as people write it: the settings with which it can do most.
EXAMPLES = {
    "Binary": "Binary(Scale.MEAN_ABSOLUTE)", "Ternary": "Ternary(0.5)", "TWN": "TWN()",
    "LeastSquaresTernary": "LeastSquaresTernary()", "TTQ": "TTQ()", "Uniform": "Uniform(4, range=LeastError())",
    "MidRise": "MidRise(4)", "Balanced": "Balanced(4)", "Logarithmic": "Logarithmic(4)", "Fixed": "Fixed(0, 3)",
    "BinaryCodes": "BinaryCodes(2)", "Codebook": "Codebook(4)",
}  # fmt: skip
GRANULARITIES: tuple[Granularity, ...] = (PerTensor(), PerRow(), PerGroup(2), PerGate())
YES, NO = "yes", ""


def quantizer_matrix() -> pd.DataFrame:
    """Return one row a quantizer: what its example did on a small tensor, and the test modules that use it.

    Raises:
        FewbitsError: If a public quantizer has no example here, or an example is of no public quantizer.
    """
    public = [getattr(quantizers, name) for name in quantizers.__all__]
    kinds = [kind.__name__ for kind in public if inspect.isclass(kind) and issubclass(kind, Quantizer)]
    if wrong := (set(kinds) - {"Quantizer"}) ^ set(EXAMPLES):
        raise FewbitsError(f"the examples of the quantizers and the quantizers differ: {', '.join(sorted(wrong))}.")
    tested = used_by()
    return pd.DataFrame([row(EXAMPLES[kind]) | {"tested in": ", ".join(tested[kind])} for kind in EXAMPLES])


def row(example: str) -> dict[str, str]:
    """Return what the quantizer that ``example`` writes can do."""
    quantizer, weight = parse(example), torch.linspace(-0.9, 1.0, 32).reshape(8, 4)
    trials: dict[str, Callable[[], object]] = {
        **{type(each).__name__: partial(has_groups, quantizer, each, weight) for each in GRANULARITIES},
        "packed": partial(is_packed, quantizer),
        "gradient": partial(passes_gradient, quantizer, weight),
        "learned table": partial(learns_table, quantizer),
        "importance": partial(takes_importance, quantizer, weight),
    }
    found = {name: YES if works(trial) else NO for name, trial in trials.items()}
    return {"quantizer": example, "bits": widths(quantizer, weight)} | found | {"CUDA": on_cuda(quantizer, weight)}


def works(trial: Callable[[], object]) -> bool:
    """Return the answer of a trial; what is refused does not work."""
    try:
        return bool(trial())
    except FewbitsError:
        return False


def widths(quantizer: Quantizer, weight: Tensor) -> str:
    """Return the bits a weight: all that the setting ``bits`` may be, or the example's own."""
    if not hasattr(quantizer, "bits"):
        return str(quantizer.encode(weight).grid.bits)
    able = [bits for bits in range(1, 33) if works(partial(replace, quantizer, bits=bits))]
    return f"{able[0]}–{able[-1]}"


def has_groups(quantizer: Quantizer, granularity: Granularity, weight: Tensor) -> bool:
    """Return whether the quantizer takes this granularity and makes its groups."""
    if "granularity" not in vars(quantizer):
        return False
    codes = replace(quantizer, granularity=granularity).encode(weight)
    return bool(codes.groups == granularity.groups(weight.shape))


def is_packed(quantizer: Quantizer) -> bool:
    """Return whether a layer comes back from its packed file bit for bit."""
    model = quantize(nn.Linear(4, 8), {"weight": quantizer}).eval()
    with TemporaryDirectory() as folder:
        pack(model).save(folder)
        fresh = PackedModel.load(folder).load_into(nn.Linear(4, 8))
    return torch.equal(fresh.weight, model.weight)


def passes_gradient(quantizer: Quantizer, weight: Tensor) -> bool:
    """Return whether a gradient comes back to the weight."""
    leaf = weight.clone().requires_grad_()
    quantizer(leaf).square().sum().backward()
    return arrived(leaf)


def learns_table(quantizer: Quantizer) -> bool:
    """Return whether a gradient comes back to a table of the parametrized layer, its codebook being trained."""
    model = quantize(nn.Linear(4, 8), {"weight": quantizer})
    if isinstance(quantizer, Codebook):
        train_codebooks(model)
    model.weight.square().sum().backward()
    table = model.parametrizations.weight[0].learned
    return table is not None and arrived(table)


def arrived(leaf: Tensor) -> bool:
    """Return whether there is a gradient, finite and not 0 everywhere."""
    return leaf.grad is not None and bool(leaf.grad.isfinite().all() and leaf.grad.any())


def takes_importance(quantizer: Quantizer, weight: Tensor) -> bool:
    """Return whether other values come out if some weights count more."""
    importance = torch.logspace(-3, 3, weight.numel()).view_as(weight)
    return not torch.equal(quantizer(weight, importance=importance), quantizer(weight))


def on_cuda(quantizer: Quantizer, weight: Tensor) -> str:
    """Return "run" if the machine that builds the book has a device and finite values came from it."""
    if not torch.cuda.is_available():
        return "not run here"
    return "run" if quantizer(weight.to("cuda")).isfinite().all() else "failed"


def used_by() -> dict[str, list[str]]:
    """Return the modules under ``tests/quantizers`` that import each quantizer."""
    found: dict[str, list[str]] = {kind: [] for kind in EXAMPLES}
    for path in sorted((project.root() / "tests" / "quantizers").glob("test_*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imports = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "fewbits.quantizers")
        for name in sorted({alias.name for node in imports for alias in node.names} & set(EXAMPLES)):
            found[name].append(path.stem)
    return found
