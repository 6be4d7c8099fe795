"""The moving average of an activation's range: its rule, its buffer, and evaluating, saving and packing with it."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import PackedModel, pack, quantize
from fewbits.quantizers import Binary, Given, MovingAverage, PerRow, Uniform

FOLLOWING = Uniform(4, range=MovingAverage(0.9))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def batches(number: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(1 + n) * torch.randn(5, 4, generator=generator) for n in range(number)]


def network(quantizer: Uniform = FOLLOWING) -> nn.Sequential:
    """A linear map, then what leaves it as it is: its output range is what is followed."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Identity(), nn.Linear(3, 2))
    return quantize(model, {"0.weight": Binary()}, {"1": quantizer})


def followed(model: nn.Module) -> list[float]:
    return model[1].output_range.tolist()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_the_range_is_that_of_torch_s_moving_average_observer(momentum):
    """r ← r + c · (now − r) with c = 1 − momentum, from the first batch's range on; each step is rounded to float32."""
    model = network(Uniform(4, range=MovingAverage(momentum)))
    observer = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=1 - momentum)
    mean = None
    for number, batch in enumerate(batches()):
        hidden = model[0](batch).detach()
        observer(hidden)
        now = np.array([hidden.min(), hidden.max()], dtype=np.float64)
        mean = now if mean is None else momentum * mean + (1 - momentum) * now
        model(batch)
        expected = [observer.min_val.item(), observer.max_val.item()]
        np.testing.assert_allclose(followed(model), expected, rtol=4 * (number + 1) * 2.0**-24)
        np.testing.assert_allclose(followed(model), mean, rtol=4 * (number + 1) * 2.0**-24)


@pytest.mark.parametrize("symmetric", [True, False])
def test_training_quantizes_with_the_range_after_the_batch(symmetric):
    model = network(Uniform(4, symmetric=symmetric, range=MovingAverage(0.9)))
    for batch in batches():
        hidden = model[0](batch)
        output = model[1](hidden)
        low, high = followed(model)
        assert torch.equal(output, Uniform(4, symmetric=symmetric, range=Given(low, high))(hidden))
    assert not torch.equal(output, Uniform(4, symmetric=symmetric)(hidden)), "it is not the range of the last batch"


def test_the_gradient_passes():
    model, hidden = network(), torch.randn(5, 3, requires_grad=True)
    model[1](hidden).square().sum().backward()
    low, high = followed(model)
    torch.testing.assert_close(hidden.grad, 2 * Uniform(4, range=Given(low, high))(hidden).detach())
    assert not model[1].output_range.requires_grad


def test_evaluation_keeps_the_range():
    model = network()
    for batch in batches():
        model(batch)
    before = followed(model)
    model.eval()
    for batch in batches():
        assert torch.equal(model[1](100 * batch), Uniform(4, range=Given(*before))(100 * batch))
    assert followed(model) == before
    model.train()
    model(batches()[0])
    assert followed(model) != before


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_range_that_was_never_seen_is_refused(mode):
    model = network().eval()
    assert all(map(math.isnan, followed(model)))
    with mode(), pytest.raises(FewbitsError, match="never seen: pass a batch in training mode first"):
        model(batches()[0])
    model.train()
    with mode():
        model(batches()[0])
        model.eval()
        assert model(batches()[0]).isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_batch_that_diverged_is_named_and_leaves_no_trace(bad, first):
    model, wrong = network(), torch.randn(5, 4)
    wrong[2, 1] = bad
    if not first:
        model(batches()[0])
    before = followed(model)
    with pytest.raises(FewbitsError, match="NaN or infinity"):
        model(wrong)
    np.testing.assert_array_equal(followed(model), before)
    model(batches()[1])
    assert all(map(math.isfinite, followed(model)))


def test_an_empty_batch_moves_nothing():
    model = network()
    assert model(torch.zeros(0, 4)).shape == (0, 2)
    assert all(map(math.isnan, followed(model)))
    model(batches()[0])
    before = followed(model)
    model(torch.zeros(0, 4))
    assert followed(model) == before


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("constant", [0.75, -0.75])
def test_the_range_of_one_number_reaches_from_zero_to_it(symmetric, constant):
    model = network(Uniform(4, symmetric=symmetric, range=MovingAverage()))
    torch.testing.assert_close(model[1](torch.full((5, 3), constant)), torch.full((5, 3), constant))
    model.eval()
    beyond = model[1](torch.full((5, 3), 40 * constant))
    torch.testing.assert_close(beyond, torch.full((5, 3), constant), rtol=0.1, atol=0)  # z is rounded: half a step


def test_only_a_moving_average_has_a_buffer():
    model = quantize(
        nn.Sequential(nn.Linear(4, 4), nn.Tanh()), {}, {"1": Uniform(4), "0": Uniform(4, range=Given(-1, 1))}
    )
    assert not [name for name, _ in model.named_buffers()]
    model(batches()[0])
    assert [name for name, _ in network().named_buffers()] == ["1.output_range"]
    weight = torch.randn(4, 4)
    plain = quantize(nn.Linear(4, 4), {"weight": Uniform(4, PerRow(), range=MovingAverage())})
    plain.weight = weight
    assert torch.equal(plain.weight, Uniform(4, PerRow())(weight))


def test_the_first_tensor_of_a_whole_model_s_tuple(tmp_path):
    model, inputs = quantize(nn.LSTM(4, 3), {"weight_*": Binary()}), torch.randn(5, 2, 4)
    plain, states = model(inputs)
    quantize(model, {}, {"": FOLLOWING})
    output, same = model(inputs)
    low, high = model.output_range.tolist()
    assert (low, high) == tuple(end.item() for end in plain.aminmax())
    assert torch.equal(output, Uniform(4)(plain))
    assert all(torch.equal(*pair) for pair in zip(same, states, strict=True))
    pack(model).save(tmp_path)
    fresh = PackedModel.load(tmp_path).load_into(nn.LSTM(4, 3))
    assert fresh.output_range.tolist() == [low, high]


def test_a_state_dict_and_a_copy_take_the_range_along():
    model, other = network(), network()
    for batch in batches():
        model(batch)
    assert "1.output_range" in model.state_dict()
    other.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    for each in (other, twin):
        assert followed(each) == followed(model)
        assert torch.equal(each.eval()(batches()[0]), model.eval()(batches()[0]))
    twin.train()
    twin(batches()[0])
    assert followed(twin) != followed(model)


def test_a_packed_model_takes_the_range_along(tmp_path):
    model = network()
    for batch in batches():
        model(batch)
    pack(model).save(tmp_path)
    fresh = nn.Sequential(nn.Linear(4, 3), nn.Identity(), nn.Linear(3, 2))
    PackedModel.load(tmp_path).load_into(fresh)
    assert followed(fresh) == followed(model)
    model.eval()
    fresh.eval()
    for batch in batches():
        assert torch.equal(fresh(10 * batch), model(10 * batch))
    fresh.train()
    fresh(batches()[0])
    assert followed(fresh) != followed(model), "it goes on from there"


def test_training_with_it_lowers_the_loss():
    model = network(Uniform(6, range=MovingAverage(0.9)))
    inputs = torch.randn(64, 4)
    wanted = torch.stack([inputs.sum(1), inputs[:, 0]], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
