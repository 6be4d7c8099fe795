"""The first experiment: its configuration, its runs, and what one training gives."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from pydantic import ValidationError
from tiny_training import MADE_UP, STOCHASTIC, TYPES, configuration

from fewbits.data import data_hashes
from fewbits.errors import FewbitsError
from fewbits.experiments import lstm_perplexity, on_text
from fewbits.experiments.lstm_perplexity import ARMS, LstmPerplexity, runs
from fewbits.models import Cell
from fewbits.study.profiles import Profile
from fewbits.study.run import run
from fewbits.training.settings import Precision, Schedule, Training


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_training.use_made_up(monkeypatch)
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))


def smoke(settings: LstmPerplexity) -> Any:
    return run(settings, Profile.SMOKE, device="cpu", progress=False).result


# --- which runs a profile has -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", Profile)
def test_none_is_what_the_profile_says(profile: Profile) -> None:
    default = runs(profile)
    seeds = range(3 if profile is Profile.FULL else 1)
    assert [(each.arm, each.seed) for each in default] == [(arm, seed) for seed in seeds for arm in ARMS]
    assert runs(profile, arms=None, seeds=None, corpus=None, epochs=None) == default


def test_full_is_the_documents_scale() -> None:
    for each in runs(Profile.FULL):
        assert (each.corpus, each.vocabulary_size, each.train_tokens, each.evaluation_tokens) == (
            "ptb",
            None,
            None,
            None,
        )
        assert (each.embedding_size, each.hidden_size, each.layers, each.batch_size, each.length) == (
            200,
            200,
            2,
            20,
            35,
        )
        assert each.dropout == 0.2
        training = each.training
        assert (training.learning_rate, training.clip, training.schedule) == (20, 0.25, Schedule.CALENDAR)
        assert (training.constant_epochs, training.decay) == (6, 2), "the last epochs are at a small rate"
        assert (each.training.epochs, each.training.precision) == (12, Precision.FLOAT32)


def test_only_the_arm_differs_between_the_runs_of_a_seed() -> None:
    plain = [each.model_dump(exclude={"arm", "weights", "initial_range", "seed"}) for each in runs(Profile.FULL)]
    assert all(each == plain[0] for each in plain)
    quantizers = {each.arm: [text.split("(")[0] for text in each.weights.values()] for each in runs(Profile.FULL)}
    assert quantizers == {"float": [], "twn": ["TWN"], "ternary": ["Ternary"], "binary": ["Binary"]}


def test_arms_seeds_and_epochs_can_be_chosen() -> None:
    chosen = runs(Profile.LAPTOP, arms=["binary", "float"], seeds=3, epochs=7)
    expected = [(arm, seed) for seed in range(3) for arm in ("binary", "float")]
    assert [(each.arm, each.seed) for each in chosen] == expected
    default = runs(Profile.LAPTOP, arms=["binary"])[0].training
    assert {each.training for each in chosen} == {default.model_copy(update={"epochs": 7})}
    full = runs(Profile.FULL)[0].training
    assert runs(Profile.FULL, epochs=2)[0].training == full.model_copy(update={"epochs": 2})
    assert runs(Profile.FULL)[0].training.epochs == 12, "a choice is of one call"


@pytest.mark.parametrize(
    ("profile", "corpus", "size"),
    [
        (Profile.SMOKE, "ptb", 500),
        (Profile.LAPTOP, "ptb", 5_000),
        (Profile.LAPTOP, "polish", 5_000),
        (Profile.FULL, "ptb", None),
        (Profile.FULL, "news", None),
    ],
)
def test_another_corpus_keeps_the_size_of_the_profiles_vocabulary(
    profile: Profile, corpus: str, size: int | None
) -> None:
    for each in runs(profile, corpus=corpus):
        assert (each.corpus, each.vocabulary_size) == (corpus, size)
        assert corpus in each.name


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"arms": ["float", "tern", "Binary"]}, "unknown arms Binary, tern; there are float, twn, ternary, binary"),
        ({"arms": []}, "arms is empty; there are float, twn, ternary, binary"),
        ({"seeds": 0}, "seeds is 0; give 1 or more, or None"),
        ({"seeds": -2}, "seeds is -2"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_a_choice_that_is_none_is_an_error(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        runs(Profile.SMOKE, **choice)


# --- the configuration ------------------------------------------------------------------------------------------------


def test_quantizers_have_one_way_to_be_written() -> None:
    short = configuration(weights={"rnn.weight_*": "TWN( PerGate() )"})
    long = configuration(weights={"rnn.weight_*": "TWN(granularity=PerGate(gates=4))"})
    assert short == long
    assert LstmPerplexity.model_validate_json(short.model_dump_json()) == short


@pytest.mark.parametrize("text", ["Tern(0.5)", "Ternary(-1)", "0.5", "__import__('os')", "TWN(", ""])
def test_a_text_that_is_no_quantizer_is_an_error(text: str) -> None:
    with pytest.raises(FewbitsError):
        configuration(weights={"rnn.weight_*": text})


@pytest.mark.parametrize(
    "field",
    [{"hidden": 8}, {"hidden_size": 0}, {"layers": 0}, {"dropout": 1.0}, {"cell": "rnn"}, {"training": {"epoch": 1}}],
)
def test_unknown_and_impossible_settings_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        configuration(**field)


def test_an_unknown_corpus_is_an_error_that_names_those_there_are() -> None:
    (settings, *_) = runs(Profile.SMOKE, corpus="ptbb")
    with pytest.raises(FewbitsError, match=r"no data set 'ptbb'. Did you mean 'ptb'\?"):
        run(settings, Profile.SMOKE, device="cpu")


def test_the_hashes_are_those_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hashes(name: str) -> dict[str, str]:
        asked.append(name)
        return {"file": name * 2}

    assert on_text.data_hashes is data_hashes
    monkeypatch.setattr(on_text, "data_hashes", hashes)
    assert configuration(corpus="ptb").data_hashes() == {"file": "ptbptb"}
    assert configuration(corpus="ptb").key("cpu") != configuration(corpus="news").key("cpu")
    assert set(asked) == {"ptb", "news"}


# --- one training -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"arm": "stochastic", "weights": {"rnn.weight_*": STOCHASTIC}, "dropout": 0.3},
        {"arm": "twn", "weights": {"rnn.weight_*": "TWN(PerGate(3))"}, "cell": "gru", "initial_range": 0.3},
    ],
    ids=["float", "stochastic", "gru"],
)
def test_the_same_run_gives_the_same_result_and_another_seed_does_not(changes: dict[str, Any]) -> None:
    settings = configuration(**changes, training=Training(epochs=2, learning_rate=2.0))
    torch.manual_seed(11)
    first = smoke(settings)
    torch.manual_seed(22)  # whatever was drawn before
    assert smoke(settings) == first
    assert smoke(settings.model_copy(update={"seed": 1})).weights_sha256 != first.weights_sha256


@pytest.mark.usefixtures("made_up")
def test_a_training_learns_the_text_and_says_what_it_read() -> None:
    result = smoke(configuration(hidden_size=32, embedding_size=16, train_tokens=None, length=20))
    metrics = result.metrics
    text = tiny_training.corpus()
    counts = torch.bincount(text.train, minlength=TYPES) + 1.0
    chance = counts.double() / counts.sum()
    unigram = math.exp(sum(-math.log(chance[word]) for word in text.test[:300].tolist()) / 300)
    assert metrics["unigram_test_perplexity"] == pytest.approx(unigram, rel=1e-9)
    # each word has 4 successors: no model of this text reaches less than 4
    assert 4 < metrics["test_perplexity"] < 0.5 * unigram
    assert metrics["valid_perplexity"] == pytest.approx(math.exp(min(row["valid_loss"] for row in result.history)))
    counted = {name: metrics[name] for name in ("epochs", "vocabulary_size", "train_tokens", "test_tokens")}
    assert counted == {"epochs": 3, "vocabulary_size": TYPES, "train_tokens": 10_000, "test_tokens": 300}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("weights", "bits"), [({}, 32.0), ({"rnn.weight_*": "Binary()"}, 1.0), ({"rnn.weight_*": "Ternary(0.1)"}, 2.0)]
)
def test_parameters_and_sizes_are_exact(weights: dict[str, str], bits: float) -> None:
    words, embedding, hidden = 30, 6, 8
    settings = configuration(
        weights=weights, vocabulary_size=words, embedding_size=embedding, training=Training(epochs=1)
    )
    result = smoke(settings)
    recurrent = 4 * hidden * (embedding + hidden)
    others = words * embedding + 2 * 4 * hidden + words * hidden + words
    metrics = result.metrics
    assert metrics["parameters"] == recurrent + others
    assert metrics["float_bits"] == 32 * (recurrent + others)
    assert metrics["recurrent_bits"] == bits * recurrent
    assert metrics["size_bits"] == bits * recurrent + 32 * others
    assert set(result.arrays) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    assert {sum(counts) for counts in result.arrays.values()} == {4 * hidden * embedding, 4 * hidden * hidden}
    if weights:
        assert metrics["size_bits"] / 8 < metrics["file_bytes"] < metrics["size_bits"] / 8 + 20_000
        assert metrics["zero_fraction"] == 0 if bits == 1 else 0 < metrics["zero_fraction"] < 1


@pytest.mark.usefixtures("made_up")
def test_weights_beyond_the_histogram_are_counted_at_its_edges() -> None:
    settings = configuration(initial_range=9.0, training=Training(epochs=1, learning_rate=1e-6))
    for counts in smoke(settings).arrays.values():
        assert len(counts) == len(lstm_perplexity.HISTOGRAM) - 1
        assert sum(counts) == 4 * 8 * 8
        assert min(counts[0], counts[-1]) > 0.3 * sum(counts)  # of a uniform ±9, 5 in 12 lie beyond each edge of ±1.5


@pytest.mark.parametrize(("initial_range", "weights"), [(None, 1 / 8**0.5), (0.52, 0.52)])
def test_the_range_of_the_start_is_that_of_weights_and_not_of_biases(
    initial_range: float | None, weights: float
) -> None:
    model = configuration(initial_range=initial_range).float_model(30)
    for name, parameter in model.body.rnn.named_parameters():
        end = weights if "weight" in name else 1 / 8**0.5
        assert 0.8 * end < parameter.abs().max() <= end, name


@pytest.mark.usefixtures("made_up")
def test_a_vocabulary_of_another_size_than_there_are_types_is_an_error() -> None:
    with pytest.raises(FewbitsError, match=f"a vocabulary of 61 words was asked for, but .* {TYPES} types"):
        smoke(configuration(vocabulary_size=TYPES + 1))


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("pattern", ["rnn.wieght_*", "lstm.*"])
def test_a_pattern_that_matches_nothing_is_an_error_that_lists_the_names(pattern: str) -> None:
    with pytest.raises(FewbitsError, match=r"matches no parameter; there are: .*body\.rnn\.weight_ih_l0"):
        smoke(configuration(weights={pattern: "Binary()"}))


@pytest.mark.usefixtures("made_up")
def test_per_gate_of_a_gru_names_the_right_number() -> None:
    with pytest.raises(FewbitsError, match=r"use PerGate\(3\)"):
        smoke(configuration(cell=Cell.GRU, weights={"rnn.weight_*": "TWN(PerGate())"}))


@pytest.mark.usefixtures("made_up")
def test_a_training_that_diverges_says_where_and_what_to_do() -> None:
    wild = Training(epochs=2, learning_rate=1e38, clip=1e38)
    with pytest.raises(FewbitsError, match=r"epoch 1, step \d+: .*Lower the learning rate"):
        smoke(configuration(training=wild))


@pytest.mark.usefixtures("made_up")
def test_the_made_up_text_can_be_kept_and_loaded_as_any_other(tmp_path: Path) -> None:
    settings = configuration(training=Training(epochs=1))
    assert settings.corpus == MADE_UP
    first = run(settings, Profile.LAPTOP, device="cpu", progress=False)
    assert run(settings, Profile.LAPTOP, device="cpu", progress=False) == first
    assert first.result == smoke(settings), "checkpoints do not change a result"
    kept = sorted(path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept == [".json", ".safetensors"], "the record, and the weights that other experiments start from"
