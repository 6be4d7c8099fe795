"""fairseq's checkpoints: our search over the loaded model against what fairseq itself found (``fairseq/make.py``)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.evaluation.search import Beam, beam_search
from fewbits.models import ConvSeq2Seq, Transformer, padded
from fewbits.models.fairseq import Dictionary, FairseqModel, MosesBpe, load_fairseq, remove_bpe

FOLDER = Path(__file__).parent / "fairseq"
STORED = json.loads((FOLDER / "hypotheses.json").read_text(encoding="utf-8"))
NEW = ("separate", "joined", "tied", "fconv")
FILES = [*((name, name) for name in NEW), *((f"{name}-2018", name) for name in ("separate", "joined", "fconv"))]

#: Log-probabilities of a step are sums of at most 20 products a matrix in float32, in another order than fairseq's; a
#: total adds up to 60 of them. fairseq's are stored with six decimals.
TOLERANCE = 1e-4


def loaded(file: str) -> FairseqModel:
    names = ("joined", "joined") if file.startswith("joined") else ("separate.xx", "separate.yy")
    return load_fairseq(FOLDER / f"{file}.pt", *(FOLDER / f"{name}.txt" for name in names))


def source(model: FairseqModel) -> Tensor:
    return padded([model.source.encode(line) for line in STORED["lines"]])


@pytest.mark.parametrize(("file", "name"), FILES)
@pytest.mark.parametrize("search", STORED["searches"])
def test_beam_search_finds_what_fairseq_finds(file: str, name: str, search: str) -> None:
    model = loaded(file)
    settings = STORED["searches"][search]
    beam = Beam(
        settings["beam_size"],
        max_length=min(settings.get("max_len_b", 200) + 1, model.longest),
        length_penalty=settings.get("len_penalty", 1.0),
        n_best=settings["beam_size"],
        excluded=model.excluded,
        min_length=1,
        force_end=True,
    )
    numbers = {"sos": model.model.sos, "eos": model.model.eos}
    found = beam_search(model.model, model.model.classifier, source(model), beam=beam, **numbers)
    theirs = STORED["models"][name][search]
    assert len(found) == len(theirs)
    for ours, wanted in zip(found, theirs, strict=True):
        words = [" ".join(model.target.words[number] for number in one.words) + " </s>" for one in ours]
        assert [word.strip() for word in words] == [one["words"] for one in wanted]
        assert [one.total for one in ours] == pytest.approx([one["total"] for one in wanted], abs=TOLERANCE)
        scores = [one.score(beam.length_penalty) for one in ours]
        assert scores == pytest.approx([one["score"] for one in wanted], abs=TOLERANCE)


@pytest.mark.parametrize(("file", "name"), FILES)
def test_each_word_scores_as_in_fairseq(file: str, name: str) -> None:
    model = loaded(file)
    best = [hypotheses[0] for hypotheses in STORED["models"][name]["default"]]
    target = padded([model.target.encode(one["words"].removesuffix("</s>")) for one in best])
    with torch.no_grad():
        scores = -model.model.classifier.nll(model.model(source(model), target), target.clamp_min(0))
    for row, one in zip(scores.tolist(), best, strict=True):
        assert row[: len(one["steps"])] == pytest.approx(one["steps"], abs=TOLERANCE)


def test_the_oracle_is_worth_something() -> None:
    for name in NEW:
        searches = STORED["models"][name]
        best = [one[0]["words"].split() for one in searches["default"]]
        assert len({tuple(words) for words in best}) > 8  # sentences have translations of their own
        assert max(map(len, best)) > 9
        forced = [len(one["words"].split()) for sentence in searches["short"] for one in sentence]
        assert max(forced) == 5  # four words and the end that must come
        different = [
            a[0]["words"] != b[0]["words"] for a, b in zip(searches["default"], searches["short"], strict=True)
        ]
        assert sum(different) > 5


def test_models_are_those_of_the_checkpoints() -> None:
    kinds = {name: loaded(name) for name in NEW}
    assert isinstance(kinds["fconv"].model, ConvSeq2Seq)
    assert kinds["fconv"].longest == 62  # positions of fairseq are numbered from the padding's, 64 in all
    for name in ("separate", "joined", "tied"):
        model = kinds[name].model
        assert isinstance(model, Transformer)
        assert kinds[name].longest == 1024
        output = model.classifier.get_submodule("output").weight
        assert (output is model.decoder.embedding.weight) == (name != "separate")
        assert (output is model.encoder.embedding.weight) == (name == "joined")
    assert not any(kind.model.training for kind in kinds.values())


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    checkpoint = torch.load(FOLDER / "separate.pt", weights_only=False)
    checkpoint["model"] = {name: value.half() for name, value in checkpoint["model"].items()}
    torch.save(checkpoint, tmp_path / "half.pt")
    model = load_fairseq(tmp_path / "half.pt", FOLDER / "separate.xx.txt", FOLDER / "separate.yy.txt").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# --- dictionaries and text -----------------------------------------------------------------------------------------


def test_sentences_become_the_pieces_that_fairseq_read() -> None:
    text = MosesBpe("xx", "yy", FOLDER / "codes")
    assert [text.pieces(sentence) for sentence in STORED["sentences"]] == STORED["lines"]
    assert [remove_bpe(line) for line in STORED["lines"]] == STORED["sentences"]
    assert any("@@ " in line for line in STORED["lines"])


def test_moses_tokens_are_those_of_its_own_script(tmp_path: Path) -> None:
    # `tokenizer.perl -a -l en` after `normalize-punctuation.perl -l en`, by hand from their rules.
    (tmp_path / "codes").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    text = MosesBpe("en", "de", tmp_path / "codes")
    assert remove_bpe(text.encode("It’s a well-known “test”, the\u0007 first.")) == (
        "It &apos;s a well @-@ known &quot; test , &quot; the first ."
    )
    assert text.encode("the thing") == "the th@@ i@@ n@@ g"
    assert text.decode("Ein bek@@ ann@@ ter Test @-@ Satz , &quot; ja &quot; &amp; gut .") == (
        'Ein bekannter Test-Satz, "ja" & gut.'
    )


def test_a_dictionary_numbers_the_words_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "dict.en.txt"
    file.write_text("the 12\na\u2028b 7\n@-@ 5\nmadeupword0000 0\n", encoding="utf-8")
    dictionary = Dictionary.read(file)
    assert dictionary.words == ("<s>", "<pad>", "</s>", "<unk>", "the", "a\u2028b", "@-@", "madeupword0000")
    assert dictionary.encode(" the  house @-@ ").tolist() == [4, 3, 6, 2]
    assert dictionary.encode("").tolist() == [2]
    assert dictionary.decode([0, 4, 3, 6, 2, 4]) == "the <unk> @-@"
    with pytest.raises(FewbitsError, match=r"no word 8: .* 0 to 7"):
        dictionary.decode([8])
