"""A language model joins its body and its classifier and nothing else."""

import torch
import torch.nn.functional as F

from fewbits.classifiers import Softmax
from fewbits.models import LanguageModel, RecurrentBody


def test_loss_is_the_mean_cross_entropy_of_the_next_words_and_the_state_goes_on():
    torch.manual_seed(0)
    model = LanguageModel(RecurrentBody(11, 4, 6, 2), Softmax(6, 11))
    words, targets = torch.randint(11, (2, 8, 3))
    hidden, after = model.body(words)
    expected = F.cross_entropy(model.classifier.output(hidden).view(-1, 11), targets.view(-1))
    loss, state = model.loss(words, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(state, after)
    torch.testing.assert_close(model(words), (hidden, after))
    first, middle = model.loss(words[:2], targets[:2])
    second, _ = model.loss(words[2:], targets[2:], middle)
    torch.testing.assert_close((2 * first + 6 * second) / 8, expected)
