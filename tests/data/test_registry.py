import pytest

from fewbits.data import registry
from fewbits.errors import FewbitsError


def test_the_registry_of_the_study_is_valid() -> None:
    assert list(registry.entries()) == ["news", "ptb", "wikitext-2", "polish", "eng-fra", "bible-en-fr"]


def test_an_unknown_name_gets_near_matches_and_all_names() -> None:
    with pytest.raises(
        FewbitsError, match=r"'wikitext2'.*Did you mean 'wikitext-2'.*news, ptb, wikitext-2, polish, eng-fra"
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


@pytest.mark.parametrize("part", [{}, {"member": "a", "query": "SELECT 1"}])
def test_a_wheel_has_a_member_or_a_query(study, part: dict[str, str]) -> None:
    wheel = {"distribution": "toy", "archive": "toy.zip", **part}
    study.register("toy", [{"path": "a", "documents": "line", "sha256": {"toy": "0" * 64}, "wheel": wheel}])
    with pytest.raises(FewbitsError, match="member of a zip file or the query"):
        registry.entries()
