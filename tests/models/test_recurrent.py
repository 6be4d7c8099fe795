"""Recurrent bodies against a loop over PyTorch's cells, and how their weights start."""

import math

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.models import Cell, RecurrentBody
from fewbits.quantizers import BinaryCodes

VOCABULARY, EMBEDDING, HIDDEN, LAYERS = 11, 4, 6, 2
WORDS = torch.randint(VOCABULARY, (7, 3), generator=torch.Generator().manual_seed(0))

cells = pytest.mark.parametrize("cell", list(Cell))


def body(cell: Cell, dropout: float = 0.0) -> RecurrentBody:
    torch.manual_seed(0)
    return RecurrentBody(VOCABULARY, EMBEDDING, HIDDEN, LAYERS, cell, dropout)


def cell_by_cell(model: RecurrentBody, cell: Cell, words: Tensor) -> tuple[Tensor, list]:
    """One cell and one word at a time, with the weights of ``model``."""
    make = {Cell.LSTM: nn.LSTMCell, Cell.GRU: nn.GRUCell}[cell]
    layers, states = [], [None] * LAYERS
    for number in range(LAYERS):
        layer = make(EMBEDDING if number == 0 else HIDDEN, HIDDEN)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layer.load_state_dict({name: getattr(model.rnn, f"{name}_l{number}") for name in names})
        layers.append(layer)
    outputs = []
    for step in words:
        value = model.embedding.weight[step]
        for number, layer in enumerate(layers):
            states[number] = layer(value, states[number])
            value = states[number][0] if cell is Cell.LSTM else states[number]
        outputs.append(value)
    return torch.stack(outputs), states


@cells
def test_hidden_states_are_those_of_a_loop_over_cells(cell):
    model = body(cell).eval()
    hidden, state = model(WORDS)
    expected, states = cell_by_cell(model, cell, WORDS)
    torch.testing.assert_close(hidden, expected)
    found = state if cell is Cell.LSTM else (state,)
    last = zip(*states, strict=True) if cell is Cell.LSTM else [states]
    for own, parts in zip(found, last, strict=True):
        torch.testing.assert_close(own, torch.stack(list(parts)))


@cells
def test_a_text_in_two_parts_gives_the_same_as_in_one(cell):
    model = body(cell).eval()
    first, state = model(WORDS[:3])
    second, _ = model(WORDS[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), model(WORDS)[0])


@cells
def test_dropout_stands_before_between_and_after_the_layers_in_training_only(cell):
    model = body(cell, dropout=1.0)
    hidden, state = model(WORDS)
    _, others = model(WORDS.flip(0))
    assert (hidden == 0).all(), "after the last layer"
    found, other = (s[0] if cell is Cell.LSTM else s for s in (state, others))
    assert torch.equal(found, other), "before the first layer: the words do not matter"
    nothing = torch.zeros(len(WORDS), WORDS.shape[1], HIDDEN)
    second = body(cell).rnn
    alone = type(second)(HIDDEN, HIDDEN)
    alone.load_state_dict({n.replace("_l1", "_l0"): p for n, p in second.named_parameters() if n.endswith("_l1")})
    last = alone(nothing)[1]
    torch.testing.assert_close(found[1], (last[0] if cell is Cell.LSTM else last)[0])
    model.eval()
    torch.testing.assert_close(model(WORDS)[0], cell_by_cell(model, cell, WORDS)[0])


def test_one_layer_has_no_dropout_between_layers_and_says_nothing(recwarn):
    assert RecurrentBody(5, 4, 4, layers=1, dropout=0.5).rnn.dropout == 0
    assert not recwarn.list


@pytest.mark.parametrize(("initial_range", "limit"), [(None, 1 / math.sqrt(64)), (0.03, 0.03)])
@cells
def test_weights_start_uniform_in_their_range(cell, initial_range, limit):
    torch.manual_seed(0)
    model = RecurrentBody(500, 64, 64, 2, cell, initial_range=initial_range)
    for weights, bound in ((model.embedding.weight, 0.1), *((p, limit) for p in model.rnn.parameters())):
        assert 0.95 * bound < weights.abs().max() <= bound
        assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert abs(weights.mean().item()) < 0.1 * bound + bound / math.sqrt(weights.numel())


def test_a_projection_is_that_of_torch_and_narrows_what_is_returned():
    torch.manual_seed(0)
    body = RecurrentBody(9, 4, 6, 2, projection=3)
    words = torch.randint(9, (5, 2))
    hidden, (h, c) = body(words)
    assert (hidden.shape, h.shape, c.shape) == ((5, 2, 3), (2, 2, 3), (2, 2, 6))
    plain = nn.LSTM(4, 6, 2, proj_size=3)
    plain.load_state_dict(body.rnn.state_dict())
    torch.testing.assert_close(hidden, plain(body.embedding(words))[0])


@pytest.mark.parametrize("settings", [{"cell": Cell.GRU}, {"activations": BinaryCodes(2)}])
def test_a_projection_where_there_is_none_is_refused(settings):
    with pytest.raises(FewbitsError, match="goes with an LSTM"):
        RecurrentBody(9, 4, 6, 1, projection=3, **settings)
