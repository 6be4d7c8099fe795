"""Classes of words against their definitions, by brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from fewbits.classifiers import cluster_classes, frequency_classes
from fewbits.classifiers.word_order import WordOrder
from fewbits.errors import FewbitsError


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=60), data=st.data())
def test_frequency_classes_are_of_equal_size_and_ordered(counts, data):
    number = data.draw(st.none() | st.integers(1, len(counts)))
    found = frequency_classes(torch.tensor(counts), number).tolist()
    expected = math.ceil(math.sqrt(len(counts))) if number is None else number
    sizes = [found.count(c) for c in range(expected)]
    assert sum(sizes) == len(counts)
    assert max(sizes) - min(sizes) <= 1
    ranked = sorted(range(len(counts)), key=lambda word: (-counts[word], word))
    classes = [found[word] for word in ranked]
    assert classes == sorted(classes)


@pytest.mark.parametrize("counts", [torch.zeros(0), torch.zeros(2, 2), torch.tensor([1, -1]), torch.tensor([math.nan])])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(FewbitsError, match="counts"):
        frequency_classes(counts)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_more_classes_than_words_are_refused(number):
    with pytest.raises(FewbitsError, match="classes were asked for"):
        frequency_classes(torch.ones(3), number)
    with pytest.raises(FewbitsError, match="classes were asked for"):
        cluster_classes(torch.ones(3, 2), number)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("words", "classes"), [(40, 4), (41, 4), (30, 7), (9, 9)])
def test_clusters_are_handed_out_in_rounds(words, classes, seed):
    points = torch.randn(words, 2, generator=torch.Generator().manual_seed(seed)).exp()  # crowded near the axes
    centres, _ = kmeans2(points.double().numpy(), classes, minit="points", rng=np.random.default_rng(seed))
    room, expected = [math.ceil(words / classes)] * classes, {}
    while waiting := [word for word in range(words) if word not in expected]:
        asking: dict[int, list[tuple[float, int]]] = {}
        for word in waiting:
            away = [math.dist(points[word].tolist(), centre) for centre in centres]
            nearest = min((c for c in range(classes) if room[c]), key=away.__getitem__)
            asking.setdefault(nearest, []).append((away[nearest], word))
        for centre, words_asking in asking.items():
            taken = [word for _, word in sorted(words_asking)[: room[centre]]]
            expected.update(dict.fromkeys(taken, centre))
            room[centre] -= len(taken)
    found = cluster_classes(points, classes, seed=seed)
    assert found.tolist() == [expected[word] for word in range(words)]


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_no_cluster_is_too_large(words, values, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(values, (words, 2), generator=generator).float()  # many or all are equal
    number = math.ceil(math.sqrt(words))
    found = cluster_classes(vectors, seed=seed)
    assert found.shape == (words,)
    assert found.min() >= 0
    assert found.max() < number
    assert torch.bincount(found).max() <= math.ceil(words / number)


def test_without_crowding_every_word_is_in_the_cluster_of_its_nearest_centre():
    line = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    found = cluster_classes(line, 2, seed=3)
    assert found[0] == found[1] != found[2] == found[3]


HUGE = torch.tensor([[1e200], [-1e200]], dtype=torch.float64)  # its square is infinite


@pytest.mark.parametrize(
    "bad", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 0), torch.tensor([[math.inf]]), HUGE]
)
def test_vectors_that_are_none_are_refused(bad):
    with pytest.raises(FewbitsError, match="vectors"):
        cluster_classes(bad)


@given(st.permutations(range(9)))
def test_an_order_and_its_inverse(words):
    order = WordOrder(torch.tensor(words))
    assert order.slots(torch.arange(9)).tolist() == [words.index(word) for word in range(9)]
    assert order.by_word(torch.tensor(words)[None]).tolist() == [list(range(9))]
    assert order.slots(torch.zeros(0, 2, dtype=torch.int32)).shape == (0, 2)


@pytest.mark.parametrize("target", [-1, 3, -100])
def test_words_that_are_none_are_refused(target):
    with pytest.raises(FewbitsError, match="from 0 to 2"):
        WordOrder(torch.arange(3)).slots(torch.tensor([0, target]))
