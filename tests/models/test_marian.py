"""Our Transformer and search beside those of Hugging Face, on one model whose weights are copied.

Searches go on until nothing better can come. Where one stops as soon as the beam is full, fairseq and ours keep the
first that ended, and ``generate`` the best of those that ended in the same step.
"""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import transformers
from marian import as_marian
from torch import Tensor, nn

from fewbits.classifiers import Constant, MaxShift, MaxShiftProcessor, Shift, Softmax, TopBit, TopMargin
from fewbits.evaluation.search import Beam, Hypothesis, Stop, beam_search, greedy
from fewbits.models import Sharing, Transformer, padded

PAD, EOS, WORDS, LONGEST = 0, 1, 13, 12


def drawn(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Lines of words, and the same words backwards, a few of them wrong."""
    source = torch.Generator().manual_seed(seed)
    lines = [torch.randint(2, WORDS, (1 + n % 8,), generator=source) for n in range(number)]
    wrong = [torch.where(torch.rand(len(line), generator=source) < 0.2, line.roll(1), line) for line in lines]
    end = torch.tensor([EOS])
    return padded([torch.cat([line, end]) for line in lines]), padded([torch.cat([w.flip(0), end]) for w in wrong])


@pytest.fixture(scope="module")
def ours() -> Transformer:
    """A model that has learned a little, so that its translations differ and end; it writes no padding."""
    torch.manual_seed(0)
    layers = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, "feed_forward": 24}
    classifier = Softmax(16, WORDS)
    model = Transformer(WORDS, classifier, sos=PAD, eos=EOS, dropout=0.0, sharing=Sharing.ALL, **layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(200):
        optimizer.zero_grad()
        model.loss(*drawn(step, 64)).backward()
        optimizer.step()
    with torch.no_grad():
        classifier.output.bias[PAD] = -torch.inf
    return model.eval()


@pytest.fixture(scope="module")
def marian(ours: Transformer) -> Any:
    """Hugging Face's model with our weights."""
    return as_marian(ours, 40)


@pytest.fixture(scope="module")
def source() -> Tensor:
    return drawn(1_000, 24)[0]


def generated(marian: nn.Module, source: Tensor, **settings: Any) -> tuple[Any, list[tuple[int, ...]]]:
    """Return what ``generate`` found, and its lines up to <eos>."""
    found = marian.generate(  # type: ignore[operator]
        input_ids=source.clamp_min(PAD), attention_mask=(source >= 0).long(), max_length=LONGEST + 1,
        return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    lines = [line[1:] for line in found.sequences.tolist()]
    return found, [tuple(line[: line.index(EOS) + 1] if EOS in line else line) for line in lines]


def written(found: Iterable[Hypothesis]) -> list[tuple[int, ...]]:
    return [(*one.words, *[EOS] * one.ended) for one in found]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("beam", [2, 5])
def test_beam_search_is_that_of_generate(
    marian: Any, ours: Transformer, source: Tensor, beam: int, penalty: float
) -> None:
    settings = {"num_beams": beam, "num_return_sequences": beam, "length_penalty": penalty, "early_stopping": "never"}
    found, lines = generated(marian, source, **settings)
    asked = Beam(beam, LONGEST, length_penalty=penalty, stop=Stop.NO_BETTER, n_best=beam)
    mine = [one for some in beam_search(ours, ours.classifier, source, sos=PAD, eos=EOS, beam=asked) for one in some]
    assert len({one.words for one in mine}) > len(source)  # not the same line everywhere
    assert written(mine) == lines
    scores = torch.tensor([one.score(penalty) for one in mine])
    torch.testing.assert_close(scores, found.sequences_scores, atol=1e-4, rtol=1e-4)


def test_greedy_search_is_that_of_generate(marian: Any, ours: Transformer, source: Tensor) -> None:
    _, lines = generated(marian, source, num_beams=1, do_sample=False)
    mine = greedy(ours, ours.classifier, source, sos=PAD, eos=EOS, max_length=LONGEST)
    assert written(mine) == lines


@pytest.mark.parametrize("shift", [Constant(0.0), Constant(0.3), TopBit(0), TopBit(3), TopMargin(2)])
def test_generate_with_the_processor_is_our_search_with_max_shift(
    marian: Any, ours: Transformer, source: Tensor, shift: Shift
) -> None:
    processors = transformers.LogitsProcessorList([MaxShiftProcessor(shift)])
    settings = {"num_beams": 5, "num_return_sequences": 5, "early_stopping": "never", "logits_processor": processors}
    found, lines = generated(marian, source, **settings)
    classifier = MaxShift(16, WORDS, shift)
    classifier.output = ours.classifier.output  # type: ignore[assignment]
    asked = Beam(5, LONGEST, stop=Stop.NO_BETTER, n_best=5)
    mine = [one for some in beam_search(ours, classifier, source, sos=PAD, eos=EOS, beam=asked) for one in some]
    assert written(mine) == lines
    scores = torch.tensor([one.score() for one in mine])
    torch.testing.assert_close(scores, found.sequences_scores, atol=1e-4, rtol=1e-4)
