"""The Transformer against torch's own layers, its own teacher-forced reading, and brute force."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits.classifiers import Softmax
from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, Stop, beam_search
from fewbits.models import Sharing, Transformer, padded
from fewbits.models.transformer import DecoderLayer, EncoderLayer, sinusoids

SOS, EOS = 0, 1


def built(source: int = 11, target: int = 9, size: int = 16, *, seed: int = 0, **settings: object) -> Transformer:
    torch.manual_seed(seed)
    settings = {"heads": 4, "encoder_layers": 2, "decoder_layers": 2, "feed_forward": 24, **settings}
    model = Transformer(source, Softmax(size, target), sos=SOS, eos=EOS, **settings)  # type: ignore[arg-type]
    with torch.no_grad():  # so that nothing of it is 0 or 1
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def sentences(seed: int = 0, vocabulary: int = 9, lengths: tuple[int, ...] = (4, 2, 5)) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.cat([torch.randint(2, vocabulary, (n,), generator=source), torch.tensor([EOS])]) for n in lengths]


def copied(into: nn.MultiheadAttention, own: nn.Module) -> None:
    parts = [own.get_submodule(name) for name in ("query", "key", "value")]
    into.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))  # type: ignore[list-item]
    into.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))  # type: ignore[list-item]
    into.out_proj.load_state_dict(own.get_submodule("output").state_dict())


def theirs(layer: EncoderLayer, kind: type[nn.Module]) -> nn.Module:
    """Return torch's own layer with the weights of ours."""
    size, wide = layer.widen.in_features, layer.widen.out_features
    other = kind(size, layer.self_attention.heads, wide, dropout=0.0, batch_first=True).eval()
    names = {"widen": "linear1", "narrow": "linear2", "self_norm": "norm1"}
    if isinstance(layer, DecoderLayer):
        names |= {"cross_norm": "norm2", "feed_forward_norm": "norm3"}
        copied(other.multihead_attn, layer.cross_attention)  # type: ignore[arg-type]
    else:
        names |= {"feed_forward_norm": "norm2"}
    copied(other.self_attn, layer.self_attention)  # type: ignore[arg-type]
    for own, its in names.items():
        other.get_submodule(its).load_state_dict(layer.get_submodule(own).state_dict())
    return other


@torch.no_grad()
def test_hidden_states_are_those_of_torchs_own_layers() -> None:
    model = built(first_position=3)
    source, target = padded(sentences(vocabulary=11)), padded(sentences(1, lengths=(3, 6, 1)))

    def embedded(embedding: nn.Embedding, words: Tensor) -> Tensor:
        places = np.arange(3, 3 + words.shape[1])[:, None]
        angles = places / 10_000 ** (np.arange(8) / 7)
        return embedding(words.clamp_min(0)) * 4 + torch.tensor(np.hstack([np.sin(angles), np.cos(angles)])).float()

    memory = embedded(model.encoder.embedding, source)
    for layer in model.encoder.layers:
        memory = theirs(layer, nn.TransformerEncoderLayer)(memory, src_key_padding_mask=source < 0)  # type: ignore[arg-type]
    before = torch.cat([torch.full((3, 1), SOS), target[:, :-1]], 1)
    hidden, future = embedded(model.decoder.embedding, before), torch.ones(7, 7).triu(1).bool()
    for layer in model.decoder.layers:
        hidden = theirs(layer, nn.TransformerDecoderLayer)(  # type: ignore[arg-type]
            hidden, memory, tgt_mask=future, memory_key_padding_mask=source < 0
        )
    words = target >= 0
    torch.testing.assert_close(model(source, target)[words], hidden[words], atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sharing", Sharing)
def test_word_by_word_is_what_reading_all_words_gives(sharing: Sharing) -> None:
    model = built(9, sharing=sharing)
    source, target = padded(sentences()), padded(sentences(1, lengths=(3, 6, 1)))
    hidden = model(source, target)
    state, words = model.start(source), torch.full((3,), SOS)
    for place, wanted in enumerate(target.unbind(1)):
        found, state = model.step(words, state)
        torch.testing.assert_close(found[wanted >= 0], hidden[:, place][wanted >= 0], atol=1e-5, rtol=1e-4)
        words = wanted.clamp_min(0)


@torch.no_grad()
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 2, 0, 0], [1, 0, 0], [2], [2, 1, 0], [0, 0, 2, 2, 0, 0], [1, 2]])
def test_reordered_rows_go_on_as_if_they_had_been_read_alone(rows: list[int]) -> None:
    model, source = built(), sentences(vocabulary=11)
    wide = torch.tensor([place for row in rows for place in (2 * row + 1, 2 * row)])
    read = torch.tensor([[3, 4], [5, 6], [7, 8], [2, 3], [4, 5], [6, 7]])  # two rows a sentence, two words a row
    _, state = model.step(torch.full((3,), SOS), model.start(padded(source)))
    state = model.reorder(state, torch.tensor([0, 0, 1, 1, 2, 2]))
    for words in read.unbind(1):
        _, state = model.step(words, state)
    found, state = model.step(torch.full((len(wide),), 8), model.reorder(state, wide))
    again, _ = model.step(torch.full((len(wide),), 2), model.reorder(state, torch.arange(len(wide))))
    for place, row in enumerate(wide.tolist()):
        words = torch.tensor([[*read[row].tolist(), 8, 2, EOS]])
        alone = model(source[row // 2][None], words)[0]
        torch.testing.assert_close(torch.stack([found[place], again[place]]), alone[3:5], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_no_number() -> None:
    model, source, target = built(), sentences(vocabulary=11), sentences(1, lengths=(3, 6, 1))
    together = model(padded(source), padded(target))
    for place in range(3):
        alone = model(source[place][None], target[place][None])[0]
        torch.testing.assert_close(together[place, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def every_translation(words: int, longest: int) -> Iterator[tuple[int, ...]]:
    others = [word for word in range(words) if word != EOS]
    for n in range(longest):
        yield from ((*start, EOS) for start in itertools.product(others, repeat=n))
    yield from itertools.product(others, repeat=longest)


@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_translations() -> None:
    model, source, longest = built(target=4), sentences(vocabulary=11), 4
    beam = Beam(3**longest, longest, length_penalty=0.7, stop=Stop.LENGTH)
    found = beam_search(model, model.classifier, padded(source), sos=SOS, eos=EOS, beam=beam)
    for (first, *_), sentence in zip(found, source, strict=True):
        scores = {}
        for words in every_translation(4, longest):
            nll = model.classifier.nll(model(sentence[None], torch.tensor([words]))[0], torch.tensor(words))
            scores[words] = -nll.sum().item() / len(words) ** 0.7
        best = max(scores, key=scores.__getitem__)
        assert (*first.words, *[EOS] * first.ended) == best
        assert first.score(0.7) == pytest.approx(scores[best], rel=1e-5)


def test_what_is_shared_is_one_matrix_and_learns_from_both_sides() -> None:
    sizes = {sharing: sum(p.numel() for p in built(9, sharing=sharing).parameters()) for sharing in Sharing}
    assert sizes[Sharing.NONE] - sizes[Sharing.TARGET] == sizes[Sharing.TARGET] - sizes[Sharing.ALL] == 9 * 16
    model = built(9, sharing=Sharing.ALL)
    source, target = padded([torch.tensor([7, EOS])]), padded([torch.tensor([3, EOS])])
    model.loss(source, target).backward()
    gradient = model.encoder.embedding.weight.grad
    assert gradient is not None
    assert (gradient.abs().sum(1) > 0).all()  # as output words; word 7 as a source word too
    frozen = built(9, sharing=Sharing.TARGET)
    frozen.load_state_dict(model.state_dict())
    frozen.loss(source, target).backward()
    shared_by_target = frozen.decoder.embedding.weight.grad
    read = frozen.encoder.embedding.weight.grad
    assert shared_by_target is not None
    assert read is not None
    torch.testing.assert_close(gradient, shared_by_target + read)


def test_the_loss_is_the_mean_over_all_words_that_are_not_padding() -> None:
    model = built()
    source, target = padded(sentences(vocabulary=11)), padded(sentences(1, lengths=(3, 6, 1)))
    scored = model.classifier.log_prob(model(source, target))
    rows = [(row, place) for row, line in enumerate(target) for place, word in enumerate(line) if word >= 0]
    nll = [-scored[row, place, target[row, place]].item() for row, place in rows]
    assert len(nll) == 13
    assert model.loss(source, target).item() == pytest.approx(sum(nll) / 13, rel=1e-5)


def test_positions_are_the_formula_in_double_precision() -> None:
    places = torch.tensor([0, 1, 17, 1000])
    angles = [[place / 10_000 ** (i / 31) for i in range(32)] for place in places.tolist()]
    wanted = [[*map(math.sin, row), *map(math.cos, row)] for row in angles]
    # a frequency rounded to 24 bits, times 1000, is 6e-5 off
    torch.testing.assert_close(sinusoids(places, 64), torch.tensor(wanted), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [({"heads": 3}, 16, "multiple of heads"), ({}, 15, "even"), ({"sharing": Sharing.ALL}, 16, "cannot share")],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        built(11, 9, size, **settings)


def test_empty_sentences_are_refused() -> None:
    for source in (torch.empty(0, 3, dtype=torch.int64), torch.full((2, 3), -1)):
        with pytest.raises(FewbitsError, match="at least the word that ends it"):
            built().start(source)
