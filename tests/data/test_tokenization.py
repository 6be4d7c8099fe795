import pytest

from fewbits.data.tokenization import Documents, Tokenization


@pytest.mark.parametrize(
    ("rule", "text", "tokens"),
    [
        (Tokenization.WHITESPACE, " The  cat <unk> @-@\n", ["The", "cat", "<unk>", "@-@"]),
        (Tokenization.WORDS, "Cóż, 3,5%… d'Arc", ["cóż", ",", "3", ",", "5", "%", "…", "d", "'", "arc"]),
        (Tokenization.WORDS_WITH_APOSTROPHES, "Rock'n'roll isn't 'it'", ["rock'n'roll", "isn't", "'", "it", "'"]),
    ],
)
def test_tokens(rule: Tokenization, text: str, tokens: list[str]) -> None:
    assert rule.tokens(text) == tokens


def test_only_line_feeds_end_a_line_and_a_byte_order_mark_is_no_text() -> None:
    content = "\ufeffone\x0c\u2028two\n\nthree\n".encode()
    assert list(Documents.LINE.within(content)) == ["one\x0c\u2028two", "", "three"]


def test_a_last_line_without_line_feed_counts() -> None:
    assert list(Documents.LINE.within(b"a\nb")) == ["a", "b"]


def test_a_file_is_one_document() -> None:
    assert list(Documents.FILE.within(b"a\r\nb\n")) == ["a\r\nb\n"]


def test_articles_are_unique_and_not_blank_in_the_order_of_the_file() -> None:
    content = b'id,text\n1,"b, ""quoted""\nline"\n2,\n3, \n4,a\n5,a\n6,"b, ""quoted""\nline"\n'
    assert list(Documents.ARTICLE.within(content)) == ['b, "quoted"\nline', "a"]
