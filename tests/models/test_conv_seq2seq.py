"""ConvS2S against a slow reference: one sentence, one word at a time, torch's own convolutions of whole prefixes."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, beam_search
from fewbits.models import padded
from fewbits.models.conv_seq2seq import ConvSeq2Seq

SOS, EOS, SOURCE, TARGET, HIDDEN, LONGEST = 0, 1, 23, 19, 6, 12
ENCODER = ((8, 3), (8, 2), (12, 5), (12, 4))
DECODER = ((6, 3), (10, 1), (10, 4))

#: In float64 sums of at most 60 numbers below about 10 are off by less than 60·10·2⁻⁵³ < 1e-13; layers add up.
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def model(dropout: float = 0.0) -> ConvSeq2Seq:
    torch.manual_seed(2)
    sizes = {"embedding_size": 10, "encoder": ENCODER, "decoder": DECODER, "max_length": LONGEST}
    made = ConvSeq2Seq(SOURCE, Softmax(HIDDEN, TARGET), sos=SOS, eos=EOS, dropout=dropout, **sizes)
    for name, parameter in made.named_parameters():
        if "bias" in name or "embedding" in name or "positions" in name:
            nn.init.normal_(parameter)  # biases of 0 and small embeddings would hide mistakes
        elif name.endswith("original0"):
            parameter.data *= torch.empty_like(parameter).uniform_(0.5, 2)
    return made.double()


def sentence(seed: int, size: int, words: int) -> Tensor:
    inner = torch.randint(2, words, (size - 1,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([inner, torch.tensor([EOS])])


PAIRS = [
    (sentence(number, 1 + number % LONGEST, SOURCE), sentence(100 + number, 1 + 5 * number % LONGEST, TARGET))
    for number in range(14)
]


# --- the reference -------------------------------------------------------------------------------------------------


@functools.cache
def normalised(module: nn.Module) -> Tensor:
    """g v / ‖v‖ with one g and one norm for each output, written out."""
    g, v = module.parametrizations.weight.original0, module.parametrizations.weight.original1
    rows = [g[i].reshape(()) * v[i] / math.sqrt(sum(x * x for x in v[i].flatten().tolist())) for i in range(len(v))]
    return torch.stack(rows).detach()


def linear(module: nn.Module, x: Tensor) -> Tensor:
    return x if isinstance(module, nn.Identity) else x @ normalised(module).T + module.bias


def gated(module: nn.Module, x: Tensor, left: int, right: int) -> Tensor:
    """All positions of a whole sentence (length, channels) by torch's convolution, then a · σ(g)."""
    kernels = normalised(module.convolution)
    found = F.conv1d(F.pad(x.T, (left, right))[None], kernels, module.convolution.bias)[0].T
    return found[:, : len(kernels) // 2] * found[:, len(kernels) // 2 :].sigmoid()


def encoded(made: ConvSeq2Seq, source: Tensor) -> tuple[Tensor, Tensor]:
    embedded = made.encoder.embedding.weight[source] + made.encoder.positions.weight[: len(source)]
    x = linear(made.encoder.widen, embedded)
    for layer, (_, kernel) in zip(made.encoder.layers, ENCODER, strict=True):
        x = math.sqrt(0.5) * (gated(layer.gated, x, (kernel - 1) // 2, kernel // 2) + linear(layer.residual, x))
    keys = linear(made.encoder.narrow, x)
    return keys, math.sqrt(0.5) * (keys + embedded)


def reference(made: ConvSeq2Seq, source: Tensor, target: Tensor) -> Tensor:
    """What the classifier reads before each word of ``target``; each prefix is computed anew."""
    return decoded(made, *encoded(made, source), target)


def decoded(made: ConvSeq2Seq, keys: Tensor, values: Tensor, target: Tensor) -> Tensor:
    hidden = []
    for length in range(1, len(target) + 1):
        prefix = torch.tensor([SOS, *target.tolist()[: length - 1]])
        embedded = made.decoder.embedding.weight[prefix] + made.decoder.positions.weight[:length]
        x = linear(made.decoder.widen, embedded)
        for layer, (_, kernel) in zip(made.decoder.layers, DECODER, strict=True):
            y = gated(layer.gated, x, kernel - 1, 0)
            rows = []
            for place in range(length):
                query = math.sqrt(0.5) * (linear(layer.query, y[place]) + embedded[place])
                context = torch.softmax(keys @ query, 0) @ values * math.sqrt(len(keys))
                rows.append(math.sqrt(0.5) * (y[place] + linear(layer.context, context)))
            x = math.sqrt(0.5) * (torch.stack(rows) + linear(layer.residual, x))
        hidden.append(linear(made.decoder.narrow, x)[-1])
    return torch.stack(hidden)


# --- tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
def test_a_sentence_is_that_of_the_reference(pair: tuple[Tensor, Tensor]) -> None:
    made = model()
    source, target = pair
    found = made(padded([source]), padded([target]))[0]
    torch.testing.assert_close(found, reference(made, source, target), **EXACT)


def test_a_batch_is_its_sentences_one_by_one_and_padding_changes_nothing() -> None:
    made = model()
    source, target = (padded(side) for side in zip(*PAIRS, strict=True))
    hidden = made(source, target)
    more = made(F.pad(source[:6, :6], (0, 5), value=-1), target[:6])
    for row, (one, its) in enumerate(PAIRS):
        alone = made(padded([one]), padded([its]))[0]
        torch.testing.assert_close(hidden[row, : len(its)], alone, **EXACT)
        if row < 6:
            torch.testing.assert_close(more[row, : len(its)], alone, **EXACT)


def test_steps_and_reordered_states_are_those_of_the_sentences() -> None:
    made = model()
    state = made.start(padded([one for one, _ in PAIRS]))
    rows = [[*range(14)], [4, 4, 0, 11], [3, 1, 1, 2], [0, 0, 1, 3], [2, 1, 0, 3]]
    words = [[SOS] * 14, [5, 6, 7, 8], [2, 3, 4, 5], [9, 10, 11, 12], [6, 7, 8, 9]]
    past = [(sentence, []) for sentence, _ in PAIRS]
    for chosen, read in zip(rows, words, strict=True):
        state = made.reorder(state, torch.tensor(chosen))
        hidden, state = made.step(torch.tensor(read), state)
        past = [(past[row][0], [*past[row][1], word]) for row, word in zip(chosen, read, strict=True)]
        for place, (source, so_far) in enumerate(past):
            torch.testing.assert_close(
                hidden[place], reference(made, source, torch.tensor([*so_far[1:], EOS]))[-1], **EXACT
            )


def test_the_loss_is_the_mean_over_words_that_are_words() -> None:
    made = model()
    source, target = (padded(side) for side in zip(*PAIRS, strict=True))
    output = made.classifier.get_submodule("output")
    logits = [reference(made, one, its) @ output.weight.T + output.bias for one, its in PAIRS]  # type: ignore[operator]
    expected = F.cross_entropy(torch.cat(logits), torch.cat([its for _, its in PAIRS]))
    # The classifier computes in float32, whose 2⁻²⁴ is the error of each of the losses of about 10.
    torch.testing.assert_close(made.loss(source, target).double(), expected, rtol=1e-6, atol=1e-6)


def test_a_searched_translation_scores_its_log_probability_and_folding_changes_nothing() -> None:
    made = model(dropout=0.9).train()
    source = padded([one for one, _ in PAIRS])
    beam = Beam(3, 7, n_best=2)
    found = beam_search(made, made.classifier, source, sos=SOS, eos=EOS, beam=beam)
    assert made.training
    made.eval()
    for (one, _), hypotheses in zip(PAIRS, found, strict=True):
        for each in hypotheses:
            target = torch.tensor([[*each.words, *([EOS] if each.ended else [])]])
            nll = made.classifier.nll(reference(made, one, target[0]), target[0]).sum().item()
            assert each.total == pytest.approx(-nll, rel=1e-5)
    target = padded([its for _, its in PAIRS])
    before = made(source, target)
    assert made.decoder.layers[2].query.parametrizations
    made.fold()
    torch.testing.assert_close(made(source, target), before, **EXACT)
    assert not [name for name, _ in made.named_parameters() if "original" in name]


def test_the_gradient_of_the_encoder_is_divided_by_twice_the_attentions() -> None:
    made = model()
    source, target = PAIRS[7]
    embedding, positions = made.encoder.embedding, made.encoder.positions
    values = torch.randn(len(target), HIDDEN, dtype=torch.float64)
    wanted = torch.autograd.grad((reference(made, source, target) * values).sum(), [embedding.weight, positions.weight])
    keys = encoded(made, source)[0].detach()
    direct = embedding.weight[source] + positions.weight[: len(source)]
    # What flows past the encoder's output, by √½ · embedded in the values, is not divided.
    past = torch.autograd.grad(
        (decoded(made, keys, math.sqrt(0.5) * (keys + direct), target) * values).sum(),
        [embedding.weight, positions.weight],
    )
    found = torch.autograd.grad(
        (made(source[None], target[None])[0] * values).sum(), [embedding.weight, positions.weight]
    )
    for ours, theirs, beside in zip(found, wanted, past, strict=True):
        torch.testing.assert_close(ours, (theirs - beside) / (2 * len(DECODER)) + beside, **EXACT)


def test_weights_start_with_the_variances_of_the_paper() -> None:
    torch.manual_seed(0)
    sizes = {"embedding_size": 200, "encoder": ((300, 3),), "decoder": ((100, 3), (300, 5))}
    made = ConvSeq2Seq(3000, Softmax(150, 9), sos=0, eos=1, dropout=0.3, **sizes)
    expected = {
        made.encoder.layers[0].gated.convolution: 4 * 0.7 / (3 * 300),
        made.decoder.layers[1].gated.convolution: 4 * 0.7 / (5 * 100),
        made.decoder.widen: 0.7 / 200,
        made.decoder.narrow: 1 / 300,
        made.decoder.layers[1].residual: 1 / 100,
        made.decoder.layers[1].query: 1 / 300,
        made.decoder.layers[1].context: 1 / 200,
        made.encoder.embedding: 0.01,
        made.encoder.positions: 0.01,
    }
    for module, variance in expected.items():
        weight = module.weight.detach()
        # Five standard errors of a sample variance of normal numbers, √(2/n) of it each.
        assert weight.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))
        assert module in (made.encoder.embedding, made.encoder.positions) or not module.bias.any()


def test_dropout_is_where_fairseq_has_it() -> None:
    made = model(dropout=0.5).train()
    counted: list[nn.Module] = []
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda drop, _, __: counted.append(drop))
    source, target = (padded(side) for side in zip(*PAIRS, strict=True))
    torch.manual_seed(0)
    one = made(source, target)
    # Embedded words of each side, input of each convolution, what the classifier reads.
    assert len(counted) == 2 + len(ENCODER) + len(DECODER) + 1
    assert (one == 0).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(one.numel()))


def batch(*sentences: list[int]) -> Callable[[], Tensor]:
    return lambda: model()(padded([torch.tensor(one) for one in sentences]), torch.tensor([[2, EOS]]))


def built(encoder: tuple[tuple[int, int], ...]) -> Callable[[], ConvSeq2Seq]:
    return lambda: ConvSeq2Seq(5, Softmax(4, 5), sos=0, eos=1, encoder=encoder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (batch([2] * LONGEST + [EOS]), r"has 13 words or more; .* for 12, the end included"),
        (lambda: model()(torch.tensor([[EOS]]), torch.full((1, LONGEST + 1), 2)), "has 13 words or more"),
        (lambda: model().start(torch.full((1, 3), -1)), "each with at least the word that ends it"),
        (lambda: model().start(torch.zeros(0, 3, dtype=torch.long)), "needs one or more sentences"),
        (built(()), r"encoder of \[\]"),
        (built(((4, 0),)), r"encoder of \[\(4, 0\)\]"),
    ],
)
def test_what_cannot_be_read_or_built_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        make()
