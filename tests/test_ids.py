"""Ids, and by what those of this service's making are known."""

import re
import subprocess
import sys
from collections import Counter
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convgrpc import ids

NOW = 1_800_000_000.9
MINTED = [
    ids.item_id(prefix, ids.conversation_id(), NOW) for prefix in ("msg", "fc", "fco", "rs", "a_b") for _ in range(20)
]
DIGITS = st.text(st.sampled_from("0123456789abcdef"), min_size=48, max_size=48)


def test_a_conversation_has_a_prefix_and_48_digits() -> None:
    """No two have the same."""
    made = [ids.conversation_id() for _ in range(100)]
    assert all(re.fullmatch("conv_[0-9a-f]{48}", each) for each in made)
    assert len(set(made)) == 100


def test_an_item_has_the_time_at_its_head_and_its_conversation_at_its_tail() -> None:
    """Between them stand random digits and a checksum."""
    conversation = ids.conversation_id()
    made = [ids.item_id("msg", conversation, NOW) for _ in range(100)]
    assert all(re.fullmatch("msg_[0-9a-f]{48}", each) for each in made)
    assert {(each[4:12], each[-16:]) for each in made} == {(f"{1_800_000_000:08x}", conversation[-16:])}
    assert len({each[12:28] for each in made}) == 100


def test_ids_made_later_are_greater() -> None:
    """Databases keep them side by side."""
    made = [ids.item_id("msg", ids.conversation_id(), NOW + second) for second in range(50)]
    assert made == sorted(made)


@pytest.mark.parametrize("prefix", ["msg", "fc", "ctc", "a_b"])
def test_ids_made_here_are_known(prefix: str) -> None:
    """By themselves: whatever their prefix, time and conversation, and though nothing was kept of them."""
    assert all(ids.is_minted(ids.item_id(prefix, ids.conversation_id(), now)) for now in (0, 1, NOW) for _ in range(20))


@pytest.mark.parametrize("minted", MINTED[:3], ids=["first", "second", "third"])
def test_an_id_with_one_digit_changed_is_not_known(minted: str) -> None:
    """Whichever it is."""
    start = len(minted) - 48
    changed = [
        minted[:place] + ("0" if minted[place] != "0" else "1") + minted[place + 1 :]
        for place in range(start, len(minted))
    ]
    assert not any(map(ids.is_minted, changed))
    assert len(changed) == 48


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda text: text[:-1], lambda text: f"{text}0", lambda text: text.replace("_", "-"), lambda _: ""],
)
def test_an_id_that_is_spelled_otherwise_is_not_known(change: object) -> None:
    """It might be anybody's."""
    assert callable(change)
    wrong = [change(each) for each in MINTED if any(map(str.isalpha, each[-24:]))]
    assert not any(map(ids.is_minted, wrong))


@pytest.mark.parametrize("length", [0, 15, 17, 40])
def test_a_checksum_among_more_or_fewer_digits_is_by_chance(length: int) -> None:
    """An id has 48 digits."""
    head, tail = "0123456789abcdef01234567", "f" * length
    assert ids.is_minted(f"msg_{head}{crc32((head + 'f' * 16).encode()):08x}{'f' * 16}")
    assert not ids.is_minted(f"msg_{head}{crc32((head + tail).encode()):08x}{tail}")


@given(DIGITS)
@example("0" * 48)
@example("f" * 48)
def test_ids_of_the_hosted_api_are_not_known(digits: str) -> None:
    """They have as many digits, of which none is a checksum."""
    assert not ids.is_minted(f"fc_{digits}")


@given(st.text(max_size=60) | st.text(min_size=48, max_size=48))
def test_any_text_is_an_id_of_others(text: str) -> None:
    """Whatever clients make up is taken."""
    assert not ids.is_minted(text)
    assert not ids.is_minted(f"fc_{text}")


def test_requests_have_ids_of_their_own() -> None:
    """No two the same."""
    made = Counter(ids.request_id() for _ in range(100))
    assert all(re.fullmatch("req_[0-9a-f]{32}", each) for each in made)
    assert len(made) == 100


def test_processes_that_fork_make_different_ids() -> None:
    """Random digits are fetched for many ids at once; what was fetched before is not used twice."""
    program = "import os; from convgrpc import ids; ids.request_id(); os.fork() or os._exit(print(ids.request_id(), flush=True) or 0); os.wait(); print(ids.request_id())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first != second
