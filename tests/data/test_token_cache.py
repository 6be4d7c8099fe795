import pytest

from fewbits.data import load_corpus


def cached(study):
    (path,) = (study.cache / "tokens").iterdir()
    return path


def refuse_to_tokenise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.data.tokenization.Tokenization.tokens", lambda *_: pytest.fail("tokenised again"))


def same(one, other) -> bool:
    splits = ("train", "valid", "test")
    return one.vocabulary == other.vocabulary and all(getattr(one, s).equal(getattr(other, s)) for s in splits)


def test_a_second_call_does_not_tokenise_and_serves_every_size(study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.splits("toy", "a ć a\nb\n", "a d\n", "b\n")
    first, small = load_corpus("toy"), load_corpus("toy", 3)
    refuse_to_tokenise(monkeypatch)
    assert same(load_corpus("toy"), first)
    assert same(load_corpus("toy", 3), small)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder"])
def test_a_damaged_file_is_made_again(study, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    study.splits("toy", "a b a\nb\n", "a d\n", "b\n")
    first = load_corpus("toy")
    path = cached(study)
    sound = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
        with pytest.warns(UserWarning, match="not kept"):
            assert same(load_corpus("toy"), first)
        return
    path.write_bytes({"cut": sound[:-1], "flip": sound[:-1] + bytes([sound[-1] ^ 1]), "empty": b""}[damage])
    assert same(load_corpus("toy"), first)
    assert path.read_bytes() == sound
    refuse_to_tokenise(monkeypatch)
    assert same(load_corpus("toy"), first)


def test_other_data_under_the_same_name_is_tokenised_anew(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    load_corpus("toy")
    study.splits("toy", "x y z\n", "a\n", "b\n")
    assert load_corpus("toy").vocabulary.words == ("<unk>", "<eos>", "x", "y", "z")


def test_a_cache_that_cannot_be_written_costs_a_warning_only(study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")

    def refuse(*_args: object, **_keywords: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", refuse)
        with pytest.warns(UserWarning, match=r"not kept.*Permission denied"):
            corpus = load_corpus("toy")
    assert corpus.vocabulary.decode(corpus.train) == ["a", "b", "<eos>"]
    assert not list((study.cache / "tokens").iterdir())
