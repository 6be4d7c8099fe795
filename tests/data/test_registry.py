import pytest

from fewbits.data import load_corpus, load_images, load_pairs, registry
from fewbits.errors import FewbitsError


def test_the_registry_of_the_study_is_valid() -> None:
    texts = ["news", "ptb", "wikitext-2", "polish", "poleval-2018", "eng-fra", "bible-en-fr"]
    texts += ["multi30k-en-de", "multi30k-en-fr", "newstest2014-en-de", "newstest2014-en-fr"]
    assert list(registry.entries()) == [*texts, "digits", "mnist", "cifar10-jpeg"]


def test_an_unknown_name_gets_near_matches_and_all_names() -> None:
    with pytest.raises(
        FewbitsError,
        match=r"'wikitext2'.*Did you mean 'wikitext-2'.*news, ptb, wikitext-2, polish, poleval-2018, eng-fra",
    ):
        registry.entry("wikitext2")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("licence:", "license:", "license"),
        ("documents: line", "documents: stanza", "stanza"),
        ("title: toy", "title: [", "registry.yaml"),
    ],
)
def test_a_faulty_registry_is_refused(study, old: str, new: str, named: str) -> None:
    study.splits("toy", "a\n", "a\n", "a\n")
    path = registry.path()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FewbitsError, match=named):
        registry.entries()


def test_a_short_hash_is_refused(study) -> None:
    study.register("toy", [{"path": "a", "documents": "line", "sha256": {"toy": "abc"}}])
    with pytest.raises(FewbitsError, match="sha256"):
        registry.entries()


def test_addresses_are_for_all_files_or_none(study) -> None:
    study.splits("toy", "a\n", "a\n", "a\n", url="http://localhost")
    del study.entries["toy"]["files"][0]["url"]
    study.register("toy", study.entries["toy"]["files"])
    with pytest.raises(FewbitsError, match="url"):
        registry.entries()


def test_what_has_an_address_has_a_hash(study) -> None:
    study.splits("toy", "a\n", "a\n", "a\n", url="http://localhost")
    study.entries["toy"]["files"][0]["sha256"] = {}
    study.write()
    with pytest.raises(FewbitsError, match="url and its hash"):
        registry.entries()


def test_a_wheel_has_a_member_or_a_query(study) -> None:
    wheel = {"distribution": "toy", "archive": "toy.zip", "member": "a", "query": "SELECT 1"}
    study.register("toy", [{"path": "a", "documents": "line", "sha256": {"toy": "0" * 64}, "wheel": wheel}])
    with pytest.raises(FewbitsError, match="member of a zip file or the query"):
        registry.entries()


@pytest.mark.parametrize("wrong", [{"format": "png"}, {"shape": [8, 8]}, {"images": {"train": "many"}}, {"tokens": {}}])
def test_a_faulty_entry_of_images_is_refused(study, wrong: dict[str, object]) -> None:
    study.images("toy", "rows", (1, 2, 2), 1, {"toy/toy.csv": b"1,2,3,4,0\n"})
    study.entries["toy"] |= wrong
    study.write()
    with pytest.raises(FewbitsError, match=rf"toy\.images\.{next(iter(wrong))}"):
        registry.entries()


def test_each_kind_of_data_has_its_own_function(study) -> None:
    study.splits("news", "a\n", "a\n", "a\n")
    study.images("dots", "rows", (1, 2, 2), 1, {"dots/dots.csv": b"1,2,3,4,0\n"})
    for read in (load_corpus, load_pairs):
        with pytest.raises(FewbitsError, match=r"'dots' holds images\. Read it with `load_images\('dots'\)`"):
            read("dots")
    with pytest.raises(FewbitsError, match=r"'news' is running text.*load_corpus\('news'\).*Images are in: dots\."):
        load_images("news")
    with pytest.raises(FewbitsError, match=r"Parallel text is in: none\."):
        load_pairs("news")
    with pytest.raises(FewbitsError, match="Did you mean 'dots'"):
        load_images("dot")
