import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.models import FeedForwardBody


@pytest.mark.parametrize("order", [2, 3, 5])
def test_each_hidden_state_is_the_formula_on_its_last_words(order: int) -> None:
    body = FeedForwardBody(vocabulary_size=7, embedding_size=3, hidden_size=4, order=order)
    words = torch.randint(7, (6, 2))
    found, _ = body(words)
    for batch in range(2):
        text = [None] * (order - 2) + words[:, batch].tolist()
        for time in range(6):
            context = [torch.zeros(3) if w is None else body.embedding.weight[w] for w in text[time : time + order - 1]]
            expected = torch.tanh(body.hidden.weight @ torch.cat(context) + body.hidden.bias)
            torch.testing.assert_close(found[time, batch], expected)


@pytest.mark.parametrize("order", [2, 4])
def test_a_text_in_pieces_gives_the_same_states(order: int) -> None:
    body, words = FeedForwardBody(9, 3, 4, order), torch.randint(9, (7, 3))
    whole, last = body(words)
    first, state = body(words[:2])
    second, state = body(words[2:3], state)
    third, state = body(words[3:], state)
    torch.testing.assert_close(torch.cat([first, second, third]), whole)
    assert state.equal(last)
    assert last.equal(words[7 - (order - 2) :])


def test_words_before_the_text_stay_zero_in_training() -> None:
    body = FeedForwardBody(5, 3, 4, 3)
    optimizer = torch.optim.SGD(body.parameters(), lr=1.0)
    body(torch.zeros(2, 1, dtype=torch.long))[0].sum().backward()
    optimizer.step()
    assert not body.embedding.weight[-1].any()


def test_an_order_below_two_is_refused() -> None:
    with pytest.raises(FewbitsError, match="order is 1"):
        FeedForwardBody(5, 3, 4, 1)
