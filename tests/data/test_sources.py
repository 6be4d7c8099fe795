import gzip
import hashlib
import os
import random

import pytest

from fewbits.data import Source, data_hashes, sources
from fewbits.errors import FewbitsError

ARTICLES = b"id,text\n1,One text.\n2,Another text.\n" + b"".join(b"%d,Text %d\n" % (i, i * 7919) for i in range(60))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def copy_to_cache(study) -> None:
    for path in study.folder.rglob("*.txt"):
        target = study.cache / "data" / path.relative_to(study.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def test_the_folder_comes_before_the_cache_and_a_source_must_be_complete(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    copy_to_cache(study)
    assert {file.source for file in sources.find("toy")} == {Source.FOLDER}
    (study.folder / "toy" / "test.txt").unlink()
    assert {file.source for file in sources.find("toy")} == {Source.CACHE}


def test_hashes_are_of_the_content(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    expected = {"toy/train.txt": sha(b"a b\n"), "toy/valid.txt": sha(b"a\n"), "toy/test.txt": sha(b"b\n")}
    assert data_hashes("toy") == expected


def test_a_pattern_is_hashed_over_the_unpacked_files_by_name(study) -> None:
    together = sha(f"{sha(b'first')}\n{sha(b'second')}\n".encode())
    study.register("toy", [{"path": "toy/*.gz", "documents": "file", "sha256": {"two": together}}])
    study.put("toy/b.gz", gzip.compress(b"second"))
    study.put("toy/a.gz", gzip.compress(b"first"))
    assert data_hashes("toy") == {"toy/*.gz": together}
    study.put("toy/c.gz", gzip.compress(b"third"))
    with pytest.raises(FewbitsError, match=r"3 files.*\n.*two"):
        data_hashes("toy")


def test_repeated_hashes_do_not_read_the_files(study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    before = data_hashes("toy")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", lambda _: pytest.fail("read again"))
        assert data_hashes("toy") == before
    study.put("toy/test.txt", b"c\n")
    os.utime(study.folder / "toy" / "test.txt", ns=(1, 1))
    with pytest.raises(FewbitsError):
        data_hashes("toy")


def test_a_corrupted_file_is_refused_with_both_hashes_and_the_remedy(study) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    study.put("toy/valid.txt", b"tampered\n")
    with pytest.raises(FewbitsError) as caught:
        data_hashes("toy")
    for part in ("toy/valid.txt", sha(b"a\n"), sha(b"tampered\n"), "unset FEWBITS_DATA"):
        assert part in str(caught.value)


def test_bytes_that_changed_after_the_hash_was_taken_are_not_handed_out(study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.splits("toy", "a b\n", "a\n", "b\n")
    train = sources.find("toy")[0]
    assert train.sha256() == sha(b"a b\n")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: b"a c\n")
    with pytest.raises(FewbitsError, match=sha(b"a c\n")):
        train.read()


def test_a_missing_data_set_says_where_we_looked_and_reaches_for_no_network(study, monkeypatch) -> None:
    study.splits("toy", "a\n", "a\n", "a\n", url="http://localhost:9")
    (study.folder / "toy" / "train.txt").unlink()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("network"))
    with pytest.raises(FewbitsError) as caught:
        data_hashes("toy")
    for part in ("toy/train.txt", str(study.folder), str(study.cache), "fewbits data get toy", "toy licence"):
        assert part in str(caught.value)


def test_a_wheel_is_read_without_import(study) -> None:
    archive = study.articles("texts", ARTICLES)
    (archive.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (located,) = sources.find("texts")
    assert located.source is Source.WHEEL
    assert located.read() == [ARTICLES]


def test_a_missing_wheel_is_named_with_what_to_do(study) -> None:
    archive = study.articles("texts", ARTICLES)
    archive.unlink()
    with pytest.raises(FewbitsError, match=r"toy-texts \(not installed, or without the file\)\nits home is nowhere"):
        data_hashes("texts")
    (study.site / "toy_texts-1.0.dist-info" / "METADATA").unlink()
    (study.site / "toy_texts-1.0.dist-info").rmdir()
    with pytest.raises(FewbitsError, match="toy-texts"):
        data_hashes("texts")


def test_a_truncated_archive_is_refused(study) -> None:
    archive = study.articles("texts", ARTICLES)
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(FewbitsError, match=rf"(?s)texts.zip.*{sha(ARTICLES)}.*unpacked.*Install the wheel again"):
        data_hashes("texts")


def test_a_truncated_gzip_file_is_refused(study) -> None:
    content = random.Random(0).randbytes(500)
    study.register("toy", [{"path": "toy/*.gz", "documents": "file", "sha256": {"one": sha(content)}}])
    study.put("toy/a.gz", gzip.compress(content)[:-100])
    with pytest.raises(FewbitsError, match="nothing that can be unpacked"):
        data_hashes("toy")


def test_no_flipped_bit_of_an_archive_goes_unnoticed_or_escapes_as_another_error(study) -> None:
    archive = study.articles("texts", ARTICLES)
    (located,) = sources.find("texts")
    sound = archive.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(sound)
        damaged[draw.randrange(len(sound))] ^= 1 << draw.randrange(8)
        archive.write_bytes(damaged)
        try:
            content = located.read()
        except FewbitsError:
            continue
        assert content == [ARTICLES]
