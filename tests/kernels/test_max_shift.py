"""The fused max-shift loss against its formula in float64, the perceptron rule by hand, and finite differences."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.kernels import max_shift_loss, max_shift_loss_of_logits

INF = float("inf")


def problem(rows: int, width: int, words: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Leaves hidden, weight, bias, and targets of which about half are the highest word."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((rows, width), (words, width), (words,))
    )
    best = F.linear(hidden, weight, bias).argmax(-1)
    target = torch.randint(words, (rows,), generator=generator)
    return [hidden, weight, bias, torch.where(torch.rand(rows, generator=generator) < 0.5, best, target)]


def perceptron(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[float, list[np.ndarray]]:
    """The loss and its three gradients, row by row in float64."""
    h, w, b, y = (
        t.detach().double().numpy() if t.is_floating_point() else t.numpy() for t in (hidden, weight, bias, target)
    )
    gradients = [np.zeros_like(h), np.zeros_like(w), np.zeros_like(b)]
    total = 0.0
    for n in range(len(h)):
        z = w @ h[n] + b
        best = int(np.argmax(z))
        total += z[best] - z[y[n]]
        gradients[0][n] += w[best] - w[y[n]]
        for word, sign in ((best, 1), (y[n], -1)):
            gradients[1][word] += sign * h[n]
            gradients[2][word] += sign
    return total / len(h), [g / len(h) for g in gradients]


@pytest.fixture(
    params=[(20, 3), (500, 1024), (2**21, 1024)], ids=["in small blocks", "in aligned blocks", "in one block"]
)
def blocks(request, monkeypatch):
    """Blocks of a few logits and rows, with rests at both ends, must not be seen from outside."""
    module = sys.modules["fewbits.kernels.max_shift"]
    monkeypatch.setattr(module, "_LOGITS_IN_WORK", request.param[0])
    monkeypatch.setattr(module, "_ROWS_IN_WORK", request.param[1])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 4, 23), (10, 3, 5), (40, 6, 8), (5, 4, 150)])
def test_value_and_gradients_are_those_of_the_perceptron(shape):
    hidden, weight, bias, target = problem(*shape)
    loss = max_shift_loss(hidden, weight, bias, target)
    loss.backward()
    value, gradients = perceptron(hidden, weight, bias, target)
    assert loss.item() == pytest.approx(value, rel=1e-12, abs=1e-12)
    for leaf, expected in zip((hidden, weight, bias), gradients, strict=True):
        np.testing.assert_allclose(leaf.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("blocks")
def test_gradients_agree_with_finite_differences():
    hidden, weight, bias, target = problem(6, 3, 9, seed=3)
    top = F.linear(hidden, weight, bias).detach().topk(2, -1).values
    assert (top[:, 0] - top[:, 1]).min() > 1e-3  # no tie within reach of the differences
    assert torch.autograd.gradcheck(lambda *leaves: max_shift_loss(*leaves, target), (hidden, weight, bias))
    logits = F.linear(hidden, weight, bias).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: max_shift_loss_of_logits(z, target), (logits,))


def test_a_row_changes_two_words_or_none():
    logits = torch.tensor([[1.0, 5.0, 2.0, 0.0], [4.0, 3.0, 0.0, 0.0]], requires_grad=True)
    (3 * max_shift_loss_of_logits(logits, torch.tensor([2, 0]))).backward()
    assert logits.grad.tolist() == [[0, 1.5, -1.5, 0], [0, 0, 0, 0]]


@pytest.mark.usefixtures("blocks")
def test_of_a_tie_the_first_word_counts():
    weight = torch.ones(12, 2, requires_grad=True)
    hidden = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    loss = max_shift_loss(hidden, weight, None, torch.tensor([0, 11]))
    loss.backward()
    expected = torch.zeros(12, 2)
    expected[0], expected[11] = hidden[1] / 2, -hidden[1] / 2
    assert loss.item() == 0
    assert torch.equal(weight.grad, expected)
    logits = torch.ones(2, 12, requires_grad=True)
    max_shift_loss_of_logits(logits, torch.tensor([0, 11])).backward()
    assert logits.grad.nonzero().tolist() == [[1, 0], [1, 11]]


def test_leading_shapes_and_given_logits_say_the_same():
    hidden, weight, bias, target = problem(12, 3, 7)
    flat = max_shift_loss(hidden, weight, bias, target)
    assert max_shift_loss(hidden.view(3, 4, 3), weight, bias, target.view(3, 4)).item() == flat.item()
    assert max_shift_loss(hidden[0], weight, bias, target[0]).item() == pytest.approx(
        perceptron(hidden[:1], weight, bias, target[:1])[0]
    )
    logits = F.linear(hidden, weight, bias)
    assert max_shift_loss_of_logits(logits.view(3, 4, 7), target.view(3, 4)).item() == pytest.approx(flat.item())


def test_only_what_needs_a_gradient_gets_one():
    hidden, weight, bias, target = problem(9, 4, 6)
    for alone in (hidden, weight, bias):
        leaves = [leaf if leaf is alone else leaf.detach() for leaf in (hidden, weight, bias)]
        max_shift_loss(*leaves, target).backward()
    for leaf, expected in zip((hidden, weight, bias), perceptron(hidden, weight, bias, target)[1], strict=True):
        np.testing.assert_allclose(leaf.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_types_sum_in_float32(dtype):
    """All numbers and logits are exact in 8 bits, the sums are not: one rounding of each gradient is left."""
    rows, generator = 300, torch.Generator().manual_seed(5)
    hidden = torch.randint(-3, 4, (rows, 4), generator=generator).to(dtype).requires_grad_()
    weight = torch.randint(-2, 3, (3, 4), generator=generator).to(dtype).requires_grad_()
    bias = (torch.arange(3) / 4).to(dtype).requires_grad_()
    target = torch.randint(3, (rows,), generator=generator)
    loss = max_shift_loss(hidden, weight, bias, target)
    loss.backward()
    value, gradients = perceptron(hidden, weight, bias, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value, rel=1e-6)
    for leaf, expected in zip((hidden, weight, bias), gradients, strict=True):
        assert leaf.grad.dtype == dtype
        np.testing.assert_allclose(leaf.grad.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_autocast_takes_the_product_in_its_type_and_gives_float32_gradients():
    hidden, weight, bias, target = problem(20, 8, 15, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = max_shift_loss(hidden, weight, bias, target)
    loss.backward()
    rounded = [leaf.detach().bfloat16().requires_grad_() for leaf in (hidden, weight, bias)]
    max_shift_loss(*rounded, target).backward()
    assert loss.item() == max_shift_loss(*rounded, target).item()
    for leaf, narrow in zip((hidden, weight, bias), rounded, strict=True):
        assert leaf.grad.dtype == torch.float32
        assert torch.equal(leaf.grad, narrow.grad.float())


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("scores", "word", "value"),
    [
        ([2.0], 0, 0.0),
        ([1.0, -INF, 3.0], 0, 2.0),
        ([1.0, -INF, 3.0], 1, INF),
        ([INF, 1.0, 0.0], 1, INF),
        ([INF, 1.0, 0.0], 0, float("nan")),
        ([-INF, -INF], 1, float("nan")),
        ([0.0, float("nan"), 9.0], 2, float("nan")),
        ([float("nan")] + 30 * [0.0], 30, float("nan")),
    ],
)
def test_infinite_and_missing_scores(scores, word, value):
    """By the bias, so that the product is where they come from; both forms say the same."""
    bias, target = torch.tensor(scores), torch.tensor([word])
    fused = max_shift_loss(torch.zeros(1, 2), torch.zeros(len(scores), 2), bias, target)
    given = max_shift_loss_of_logits(bias[None], target)
    np.testing.assert_equal([fused.item(), given.item()], [value, value])


def test_no_rows_give_nan_and_no_gradient():
    hidden, weight = torch.zeros(0, 4, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = max_shift_loss(hidden, weight, None, none)
    loss.backward()
    assert torch.isnan(loss)
    assert torch.equal(weight.grad, torch.zeros(3, 4))
    assert hidden.grad.shape == (0, 4)
    assert torch.isnan(max_shift_loss_of_logits(torch.zeros(0, 3), none))


@pytest.mark.parametrize(
    ("hidden", "weight", "bias", "target", "message"),
    [
        ((2, 4), (3, 5), (3,), [0, 1], r"must be \(…, H\) and \(V, H\)"),
        ((2, 4), (3, 4), (4,), [0, 1], "needs"),
        ((2, 4), (3, 4), (3,), [0], "of int64 is needed"),
        ((2, 4), (3, 4), (3,), [0.0, 1.0], "of int64 is needed"),
        ((2, 4), (3, 4), (3,), [0, 3], "from 0 to 3; word numbers run from 0 to 2"),
        ((2, 4), (3, 4), (3,), [-1, 0], "from -1 to 0"),
        ((2, 4), (0, 4), (0,), [0, 0], "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(hidden, weight, bias, target, message):
    with pytest.raises(FewbitsError, match=message):
        max_shift_loss(torch.zeros(hidden), torch.zeros(weight), torch.zeros(bias), torch.tensor(target))


def test_given_logits_that_do_not_fit_are_refused():
    for logits, target in ((torch.tensor(1.0), torch.tensor(0)), (torch.zeros(2, 3), torch.tensor([0, 3]))):
        with pytest.raises(FewbitsError):
            max_shift_loss_of_logits(logits, target)
