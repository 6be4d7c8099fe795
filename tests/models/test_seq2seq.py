"""The translator against the tutorial's own loop: one sentence, one word, one GRU call at a time."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, beam_search, greedy
from fewbits.models import Seq2Seq, padded

SOS, EOS, MAX_LENGTH, HIDDEN = 0, 1, 10, 12
SOURCE, TARGET = 23, 19

#: Batched products add H or 2H numbers in another order. One such sum of values up to about 4 is off by at most
#: 2H·4·2⁻²⁴ < 1e-5, and the recurrence, whose gates contract, does not amplify it beyond the loss's own sum.
ORDER = {"rtol": 1e-5, "atol": 1e-5}


def model(dropout: float = 0.0) -> Seq2Seq:
    torch.manual_seed(2)
    made = Seq2Seq(SOURCE, Softmax(HIDDEN, TARGET), sos=SOS, eos=EOS, dropout=dropout, max_length=MAX_LENGTH)
    made.classifier.output.weight.data *= 8  # so that sentences differ in their words
    return made


def sentence(seed: int, size: int, words: int) -> Tensor:
    inner = torch.randint(2, words, (size - 1,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([inner, torch.tensor([EOS])])


PAIRS = [
    (sentence(number, 1 + number % MAX_LENGTH, SOURCE), sentence(100 + number, 2 + 3 * number % 9, TARGET))
    for number in range(12)
]


# --- the tutorial, in the words of the tutorial --------------------------------------------------------------------


class EncoderRNN(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)

    def forward(self, input: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(input).view(1, 1, -1)
        return self.gru(embedded, hidden)


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden_size: int, output_size: int, dropout_p: float, max_length: int = MAX_LENGTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.attn = nn.Linear(hidden_size * 2, max_length)
        self.attn_combine = nn.Linear(hidden_size * 2, hidden_size)
        self.dropout = nn.Dropout(dropout_p)
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(self, input: Tensor, hidden: Tensor, encoder_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedded = self.dropout(self.embedding(input).view(1, 1, -1))
        attn_weights = F.softmax(self.attn(torch.cat((embedded[0], hidden[0]), 1)), dim=1)
        attn_applied = torch.bmm(attn_weights.unsqueeze(0), encoder_outputs.unsqueeze(0))
        output = torch.cat((embedded[0], attn_applied[0]), 1)
        output = F.relu(self.attn_combine(output).unsqueeze(0))
        output, hidden = self.gru(output, hidden)
        return F.log_softmax(self.out(output[0]), dim=1), hidden, attn_weights


class Tutorial:
    """The tutorial's two modules with the weights of ``model``, and its functions ``train`` and ``evaluate``."""

    def __init__(self, model: Seq2Seq, dropout: float = 0.0) -> None:
        self.encoder = EncoderRNN(SOURCE, HIDDEN)
        self.decoder = AttnDecoderRNN(HIDDEN, TARGET, dropout)
        names = {"attention.": "attn.", "combine.": "attn_combine."}
        weights = {}
        for name, value in model.decoder.state_dict().items():
            for ours, theirs in names.items():
                name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
            weights[name] = value.clone()
        weights |= {"out.weight": model.classifier.output.weight.data.clone()}  # type: ignore[union-attr]
        weights |= {"out.bias": model.classifier.output.bias.data.clone()}  # type: ignore[union-attr]
        self.encoder.load_state_dict({name: value.clone() for name, value in model.encoder.state_dict().items()})
        self.decoder.load_state_dict(weights)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.zeros(1, 1, HIDDEN)
        outputs = torch.zeros(MAX_LENGTH, HIDDEN)
        for position, word in enumerate(source):
            output, hidden = self.encoder(word, hidden)
            outputs[position] = output[0, 0]
        return outputs, hidden

    def loss(self, source: Tensor, target: Tensor, teacher_forcing: bool) -> tuple[Tensor, int]:
        """The summed loss of a sentence, and the words that it was summed over."""
        outputs, hidden = self.encode(source)
        word, loss, counted = torch.tensor([[SOS]]), torch.zeros(()), 0
        for wanted in target:
            output, hidden, _ = self.decoder(word, hidden, outputs)
            loss = loss + nn.NLLLoss()(output, wanted[None])
            counted += 1
            if teacher_forcing:
                word = wanted
            else:
                word = output.topk(1)[1].squeeze().detach()
                if word.item() == EOS:
                    break
        return loss, counted

    def attention(self, source: Tensor, target: Tensor) -> Tensor:
        outputs, hidden = self.encode(source)
        word, rows = torch.tensor([[SOS]]), []
        for wanted in target:
            _, hidden, weights = self.decoder(word, hidden, outputs)
            rows.append(weights[0])
            word = wanted
        return torch.stack(rows)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


# --- tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher_forcing", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_one_sentence_has_the_loss_of_the_tutorial(pair: tuple[Tensor, Tensor], teacher_forcing: bool) -> None:
    made = model()
    source, target = pair
    expected, _ = Tutorial(made).loss(source, target, teacher_forcing)
    loss = made.loss(padded([source]), padded([target]), teacher_forcing=teacher_forcing)
    torch.testing.assert_close(loss, expected, **ORDER)


def test_some_free_running_sentences_stop_at_their_own_end() -> None:
    made = model()
    made.classifier.output.bias.data[EOS] += 2  # type: ignore[union-attr]
    tutorial, early = Tutorial(made), 0
    for source, target in PAIRS:
        expected, counted = tutorial.loss(source, target, teacher_forcing=False)
        early += 1 < counted < len(target)
        loss = made.loss(padded([source]), padded([target]), teacher_forcing=False)
        torch.testing.assert_close(loss, expected, **ORDER)
    assert early >= 2  # else the test above would not see this rule


@pytest.mark.parametrize("teacher_forcing", [True, False])
def test_a_step_of_sgd_goes_where_the_tutorial_goes(teacher_forcing: bool) -> None:
    made = model()
    tutorial = Tutorial(made)
    source, target = PAIRS[9]
    tutorial.loss(source, target, teacher_forcing)[0].backward()
    made.loss(padded([source]), padded([target]), teacher_forcing=teacher_forcing).backward()
    ours = gradients(made)
    pairs = {f"encoder.{name}": name for name in gradients(tutorial.encoder)}
    for name, theirs in pairs.items():
        torch.testing.assert_close(ours[name], gradients(tutorial.encoder)[theirs], **ORDER)
    theirs_too = gradients(tutorial.decoder)
    renamed = {"attention.": "attn.", "combine.": "attn_combine."}
    for name, gradient in ours.items():
        if name.startswith("encoder."):
            continue
        short = name.removeprefix("decoder.").replace("classifier.output.", "out.")
        for mine, other in renamed.items():
            short = other + short.removeprefix(mine) if short.startswith(mine) else short
        torch.testing.assert_close(gradient, theirs_too.pop(short), **ORDER)
    assert not theirs_too  # every parameter of the tutorial was compared


def test_dropout_is_that_of_the_tutorial() -> None:
    made = model(dropout=0.5)
    source, target = PAIRS[7]
    torch.manual_seed(1)
    expected, _ = Tutorial(made, dropout=0.5).loss(source, target, teacher_forcing=True)
    plain, _ = Tutorial(made).loss(source, target, teacher_forcing=True)
    torch.manual_seed(1)
    Tutorial(made, dropout=0.5)  # draws the numbers that building drew above
    loss = made.loss(padded([source]), padded([target]))
    torch.testing.assert_close(loss, expected, **ORDER)
    assert abs(loss.item() - plain.item()) > 0.01


@pytest.mark.parametrize("pair", PAIRS[3:6])
def test_attention_is_that_of_the_tutorial(pair: tuple[Tensor, Tensor]) -> None:
    made = model()
    source, target = pair
    weights = made.attention(padded([source]), padded([target]))[0]
    torch.testing.assert_close(weights, Tutorial(made).attention(source, target), **ORDER)
    assert weights[:, len(source) :].min() > 0  # positions beyond the sentence take their share


@pytest.mark.parametrize("teacher_forcing", [True, False])
def test_a_batch_is_its_sentences_one_by_one(teacher_forcing: bool) -> None:
    made = model()
    made.classifier.output.bias.data[EOS] += 2  # type: ignore[union-attr]
    source, target = (padded(side) for side in zip(*PAIRS, strict=True))
    alone = [made.loss(padded([s]), padded([t]), teacher_forcing=teacher_forcing) for s, t in PAIRS]
    together = made.loss(source, target, teacher_forcing=teacher_forcing)
    torch.testing.assert_close(together, torch.stack(alone).mean(), **ORDER)


def test_padding_changes_no_number_of_a_sentence() -> None:
    made = model()
    source, target = (padded(side) for side in zip(*PAIRS, strict=True))
    hidden, weights = made(source, target), made.attention(source, target)
    for row, (one, its) in enumerate(PAIRS):
        torch.testing.assert_close(hidden[row, : len(its)], made(padded([one]), padded([its]))[0], **ORDER)
        torch.testing.assert_close(weights[row, : len(its)], made.attention(padded([one]), padded([its]))[0], **ORDER)


def test_steps_and_reordered_states_are_those_of_the_sentences() -> None:
    made = model()
    source = padded([one for one, _ in PAIRS])
    state = made.start(source)
    _, state = made.step(torch.full((len(PAIRS),), SOS), state)
    rows = torch.tensor([4, 4, 0, 11])
    hidden, _ = made.step(torch.tensor([5, 6, 7, 8]), made.reorder(state, rows))
    for place, (row, word) in enumerate(zip([4, 4, 0, 11], [5, 6, 7, 8], strict=True)):
        alone = made(padded([PAIRS[row][0]]), torch.tensor([[word, EOS]]))[0, 1]
        torch.testing.assert_close(hidden[place], alone, **ORDER)


def test_a_searched_translation_scores_its_log_probability_without_dropout() -> None:
    made = model(dropout=0.9).train()
    source = padded([one for one, _ in PAIRS])
    beam = Beam(4, 7, n_best=4)
    found = beam_search(made, made.classifier, source, sos=SOS, eos=EOS, beam=beam)
    best = greedy(made, made.classifier, source, sos=SOS, eos=EOS, max_length=7)
    assert made.training
    assert made.decoder.drop.training
    made.eval()
    for (one, _), hypotheses in zip(PAIRS, map(list.__add__, found, [[one] for one in best]), strict=True):
        for each in hypotheses:
            target = torch.tensor([[*each.words, *([EOS] if each.ended else [])]])
            nll = made.classifier.nll(made(padded([one]), target), target).sum().item()
            assert each.total == pytest.approx(-nll, rel=1e-5)


def test_sizes_are_those_of_the_tutorial() -> None:
    made = Seq2Seq(4345, Softmax(256, 2803), sos=SOS, eos=EOS)
    gru = 2 * 3 * (256 * 256 + 256)
    attention, combine, output = 512 * 10 + 10, 512 * 256 + 256, 256 * 2803 + 2803
    expected = 4345 * 256 + gru + 2803 * 256 + attention + combine + gru + output
    assert sum(parameter.numel() for parameter in made.parameters()) == expected
    assert made.decoder.drop.p == 0.1


def batch(*sentences: list[int]) -> Callable[[], Tensor]:
    return lambda: padded([torch.tensor(one, dtype=torch.long) for one in sentences])


def test_a_batch_of_int32_numbers_is_int64() -> None:
    batch_ = padded([torch.tensor([3, EOS], dtype=torch.int32), torch.tensor([EOS], dtype=torch.int32)])
    assert batch_.dtype == torch.long
    assert batch_.tolist() == [[3, EOS], [EOS, -1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (batch(), "there are no sentences"),
        (batch([1], []), "sentence 1 has no words"),
        (batch([2] * 10 + [1]), "has sentences of 11 words; .* 1 to 10"),
        (lambda: torch.full((2, 3), -1), "has sentences of 0 words"),
        (lambda: torch.zeros(0, 3, dtype=torch.long), "has no sentences"),
    ],
)
def test_sentences_that_cannot_be_read_are_named(make: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        model().start(make())
