"""Texts to numbers of tokens, with nothing from the network."""

import random
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from convgrpc.tokens import chunks, encodings
from convgrpc.tokens.encodings import ENCODINGS, RANKS, Encoding, MissingRanks

URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
OWN = ("o200k_base", "cl100k_base")
"""The encodings whose ranks come with the package."""
each_own = pytest.mark.parametrize("name", OWN)
each_encoding = pytest.mark.parametrize("name", ENCODINGS)

WITHOUT_NETWORK = """
import sys

def refuse(event, _):
    if event.startswith("socket."):
        raise AssertionError(event)

sys.addaudithook(refuse)
from convgrpc.tokens.encodings import ENCODINGS, Encoding
print(*(Encoding(name).count("Tell me a joke.") for name in ENCODINGS))
"""


def cache_name(name: str) -> str:
    """The name of a file of ranks in tiktoken's cache."""
    return sha1(URL.format(name).encode()).hexdigest()


@pytest.fixture
def afresh() -> Iterator[None]:
    """Encodings are made anew in the test, and after it."""
    encodings._load.cache_clear()
    yield
    encodings._load.cache_clear()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tiktoken.Encoding]:
    """tiktoken's own encodings, which it makes of our files: it checks their hashes itself."""
    folder = tmp_path_factory.mktemp("cache")
    for name in OWN:
        shutil.copy(RANKS / f"{name}.tiktoken", folder / cache_name(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        patch.setattr("requests.get", None)
        return {name: tiktoken.Encoding(**getattr(openai_public, name)()) for name in ENCODINGS}


@each_own
def test_the_ranks_are_those_that_tiktoken_expects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash that tiktoken asks for is that of the file in the package."""
    expected: dict[str, str] = {}

    def note(url: str, expected_hash: str) -> dict[bytes, int]:
        expected[url] = expected_hash
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", note)
    getattr(openai_public, name)()
    assert expected == {URL.format(name): sha256((RANKS / f"{name}.tiktoken").read_bytes()).hexdigest()}


@each_encoding
def test_an_encoding_is_tiktokens_own(name: str, theirs: dict[str, tiktoken.Encoding]) -> None:
    """Ranks, pattern and special tokens alike."""
    ours = encodings.load(name)
    for attribute in ("name", "_pat_str", "_special_tokens", "_mergeable_ranks"):
        assert getattr(ours, attribute) == getattr(theirs[name], attribute), attribute


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """All encodings count in a process that can make no socket, and that has no cache."""
    counted = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert (counted.stdout, counted.stderr) == ("5 5 5\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("afresh")
def test_ranks_of_the_operators_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`TIKTOKEN_CACHE_DIR` serves even where the package has no ranks."""
    shutil.copy(RANKS / "cl100k_base.tiktoken", tmp_path / cache_name("cl100k_base"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(encodings, "RANKS", tmp_path / "nowhere")
    assert Encoding("cl100k_base").count("Tell me a joke.") == 5


@pytest.mark.usefixtures("afresh")
def test_wrong_ranks_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the cache with another hash counts as none, although it could be read."""
    (tmp_path / cache_name("cl100k_base")).write_bytes(b"IQ== 0\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert Encoding("cl100k_base").count("Tell me a joke.") == 5
    assert (tmp_path / cache_name("cl100k_base")).read_bytes() == b"IQ== 0\n"


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("content", [None, b"IQ== 0\n"])
def test_ranks_that_are_nowhere_are_missed_by_name(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has all the paths that were tried."""
    packaged, cached = tmp_path / "ranks", tmp_path / cache_name("o200k_base")
    packaged.mkdir()
    if content:
        cached.write_bytes(content)
        (packaged / "o200k_base.tiktoken").write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(encodings, "RANKS", packaged)
    with pytest.raises(MissingRanks) as missed:
        Encoding("o200k_harmony")
    assert str(missed.value) == (
        f"none of {cached}, {packaged / 'o200k_base.tiktoken'} is the file that tiktoken expects"
    )


@pytest.mark.usefixtures("afresh")
def test_a_failure_to_load_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the file is there, the encoding is."""
    with monkeypatch.context() as hidden:
        hidden.setattr(encodings, "RANKS", tmp_path)
        hidden.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        with pytest.raises(MissingRanks):
            Encoding("cl100k_base")
    assert Encoding("cl100k_base").count("Tell me a joke.") == 5


def test_encodings_that_differ_in_special_tokens_alone_are_one() -> None:
    """So that their ranks are in memory once, and what was counted with one serves the other."""
    assert Encoding("o200k_harmony").name == Encoding("o200k_base").name == "o200k_base"
    assert Encoding("cl100k_base").name == "cl100k_base"


@each_encoding
@pytest.mark.parametrize("special", ["<|end|>", "<|endoftext|>", "<|start|>", "<|fim_prefix|>"])
def test_what_looks_like_a_special_token_is_text(name: str, special: str) -> None:
    """It is several tokens, and nothing is refused."""
    encoding = Encoding(name)
    assert encoding.count(special) > 3
    assert encoding.count(f"a {special}") == encoding.count("a ") - encoding.count(" ") + encoding.count(f" {special}")


SNIPPETS = st.sampled_from(["fern", " moss", "  ", "\n", " It's", " a", "b c", "É", "中 x", "\r\n"])
TEXTS = st.text(st.sampled_from([*"abcXYZ   \n\t'1é中🌿.", "\ud800"]))


@each_own
def test_pieces_count_as_much_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a long text is cut, no token is."""
    encoding = Encoding(name)
    monkeypatch.setattr(chunks, "CHUNK", 8)
    pattern = encoding.counter().pattern
    cut = 0

    @settings(deadline=None, max_examples=200)
    @given(st.lists(SNIPPETS | TEXTS, min_size=4))
    def check(pieces: list[str]) -> None:
        nonlocal cut
        text = "".join(pieces)
        assert "".join(chunks.chunks(text, pattern)) == text
        cut += len(list(chunks.chunks(text, pattern))) > 1
        assert encoding.count(text) == len(encodings.load(name).encode_ordinary(text))

    check()
    assert cut


@each_own
def test_texts_together_count_as_each_alone(name: str) -> None:
    """Also what looks like a special token, and half of a character."""
    counter = Encoding(name).counter()
    special = st.sampled_from(["<|endoftext|>", "<|endof", "text|>", "<|endoftext|", ">", "<|end|>", ""])

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.lists(SNIPPETS | TEXTS | special).map("".join)))
    def check(texts: list[str]) -> None:
        assert counter.each(texts) == list(map(counter, texts))

    check()


@each_own
def test_windows_of_a_long_piece_count_as_much_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of any characters is cut where no token reaches across."""
    monkeypatch.setattr(encodings, "_WINDOW", 12)
    monkeypatch.setattr(encodings, "_LOOKAHEAD", 4)
    counter, core = Encoding(name).counter(), encodings.load(name)._core_bpe
    alphabets = [
        "ab",
        "a",
        "ing",
        "aeioustnr",
        string.ascii_lowercase,
        "ABC",
        "aA",
        "中文字苔",
        "=-!",
        "/\n!",
        " ",
        "\n ",
        "é",
        "🌿😀",
        "ก่า",
    ]
    source = random.Random(name)
    cut = 0
    for alphabet in alphabets * 100:
        text = "".join(source.choices(alphabet, k=source.randint(13, 120)))
        for piece in (match.group() for match in counter.pattern.finditer(text)):
            steps = list(counter._steps_of_piece(piece))
            assert sum(steps) == len(core.encode_single_piece(piece.encode())), piece
            cut += len(steps) > 1
    assert cut > 1000


@pytest.mark.parametrize(
    "unit",
    ["!\n", "—\n", "});\n\n", "🌿\n", "! ", " \t1", "\u2028!", "!\n ", "x\n", "\n", "1 ", "'s ", "ก่า ", "苔", "\u3000"],
)
@each_own
def test_any_text_is_cut_into_few_chunks(name: str, unit: str) -> None:
    """Their number grows with the text, and they count as much as it does."""
    text = unit * (chunks.CHUNK * 5 // 2 // len(unit))
    encoding = Encoding(name)
    pieces = list(chunks.chunks(text, encoding.counter().pattern))
    assert "".join(pieces) == text
    assert len(pieces) <= 4
    assert sum(map(len, map(encodings.load(name).encode_ordinary, pieces))) == encoding.count(text)


@each_own
@pytest.mark.parametrize("alphabet", [string.ascii_lowercase, string.ascii_letters, "a", string.digits, "ab", "苔"])
def test_text_without_words_is_counted_in_bounded_steps(name: str, alphabet: str) -> None:
    """The steps count as much as tiktoken does of the whole text."""
    text = "".join(random.Random(1).choices(alphabet, k=chunks.CHUNK * 3))
    counter = Encoding(name).counter()
    steps = list(counter.steps(text))
    assert len(steps) >= 2
    assert max(steps) <= chunks.CHUNK * 3 / 2
    assert sum(steps) == len(encodings.load(name).encode_ordinary(text))


def test_texts_together_are_encoded_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless there is much of them, or one has in it what stands between them."""
    counter = Encoding("o200k_base").counter()
    encode, calls = counter._encode, []

    def noted(text: str, special: set[str]) -> Any:
        calls.append(text)
        return encode(text, special)

    monkeypatch.setattr(counter, "_encode", noted)
    much = "fern " * (chunks.CHUNK // 5)
    for texts, expected in ((["fern"] * 3, 1), (["fern", "<|endoftext|>"], 2), ([much, "moss moss"], 2)):
        calls.clear()
        assert len(counter.each(texts)) == len(texts)
        assert len(calls) == expected


def test_a_long_text_is_taken_in_pieces() -> None:
    """Of about the size meant, where there are words."""
    text = "fern moss " * (chunks.CHUNK // 2)
    pieces = list(chunks.chunks(text, Encoding("o200k_base").counter().pattern))
    assert len(pieces) == 5
    assert "".join(pieces) == text
    assert all(chunks.CHUNK <= len(piece) < chunks.CHUNK + 20 for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("name", "character"),
    [*(("o200k_base", each) for each in " \n\ta"), ("cl100k_base", " "), ("cl100k_base", "\n")],
)
def test_a_million_of_one_character_counts(name: str, character: str) -> None:
    """Although there is nowhere to cut, or tiktoken gives up on so much white space."""
    encoding = Encoding(name)
    thousand, million = encoding.count(character * 1000), encoding.count(character * 1_000_000)
    assert 0.9 * 1000 * thousand - 1000 < million <= 1000 * thousand


@each_encoding
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "😀\ud83d"])
def test_half_of_a_character_counts(name: str, text: str) -> None:
    """As the character that stands for what is no character."""
    replaced = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert Encoding(name).count(text) == Encoding(name).count(replaced) > 0


def seconds(text: str) -> float:
    started = time.process_time()
    list(chunks.chunks(text, Encoding("o200k_base").counter().pattern))
    return time.process_time() - started


def test_a_cut_is_found_in_time_that_grows_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also among long stretches of white space that are just not long enough to cut: the search holds up everybody."""
    monkeypatch.setattr(chunks, "CHUNK", 8)
    assert seconds((" " * 4000 + "A") * 25) < 10 * seconds(("x" * 4000 + "A") * 25) + 0.1


def test_no_text_is_no_tokens() -> None:
    """Nothing is counted for it."""
    counted: list[Any] = [Encoding(name).count("") for name in ENCODINGS]
    assert counted == [0, 0, 0]


def test_whoever_counts_does_not_wait_for_an_encoding_that_is_being_loaded() -> None:
    """That takes a tenth of a second, in which a server's event loop would stand still."""
    loaded = Encoding("o200k_base")
    with ThreadPoolExecutor(1) as threads:
        count = threads.submit(loaded.count, "fern").result(60)
        with encodings._loading:
            counted = threads.submit(loaded.count, "fern")
            done, _ = wait([counted], timeout=5)
        assert done
        assert counted.result() == count
