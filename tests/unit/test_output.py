"""What is done to a command's output, whatever the chunks it comes in."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from activities.workbench.output import CappedLog, CredentialFilter, Scrubber

WORDS = {"/srv/data/patched": "/workspace", "/srv/data/patched/env": "/env", "/srv/cache": "/env", "/tmp/home": "/tmp"}


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(places)]


class TestScrubber:
    @given(
        parts=st.lists(st.sampled_from([*WORDS, "/srv/data/patch", "/srv/", "ok ", "/", "\n"]), max_size=8),
        at=st.lists(st.integers(0, 500)),
    )
    def test_chunks_make_no_difference(self, parts: list[str], at: list[int]) -> None:
        data = "".join(parts).encode()
        whole, pieces = Scrubber(WORDS), Scrubber(WORDS)
        expected = whole.feed(data) + whole.flush()
        assert b"".join(map(pieces.feed, cut(data, at))) + pieces.flush() == expected
        assert not any(word.encode() in expected for word in WORDS)

    def test_names_the_longest_path_that_fits(self) -> None:
        scrubber = Scrubber(WORDS)
        assert scrubber.feed(b"in /srv/data/patched/env/lib\n") == b"in /env/lib\n"

    def test_holds_back_only_what_may_become_a_path(self) -> None:
        scrubber = Scrubber(WORDS)
        assert scrubber.feed(b"....") == b"...."
        assert scrubber.feed(b". /srv/da") == b". "
        assert scrubber.feed(b"ta/patched.") == b"/workspace."

    def test_changes_nothing_when_there_is_nothing_to_hide(self) -> None:
        assert Scrubber({"/usr": "/usr"}).feed(b"/usr") == b"/usr"


class TestCredentialFilter:
    @given(at=st.lists(st.integers(0, 500)))
    def test_hides_user_and_password_of_every_url(self, at: list[int]) -> None:
        data = b"Looking in https://bob:s3cret@pypi.example/simple, https://p@ss:w0rd@b.example/x\nssh://git@c.example:22/r"
        hidden = CredentialFilter()
        shown = b"".join(map(hidden.feed, cut(data, at))) + hidden.flush()
        assert shown == b"Looking in https://***@pypi.example/simple, https://***@b.example/x\nssh://***@c.example:22/r"

    def test_leaves_other_text_alone(self) -> None:
        text = b"a // comment: see user@example.com or https://example.com/a@b\n"
        assert CredentialFilter().feed(text) == text

    def test_shows_a_line_that_grows_too_long(self) -> None:
        assert len(CredentialFilter().feed(b"." * 40_000)) == 40_000


class TestCappedLog:
    @given(chunks=st.lists(st.binary(max_size=40), max_size=30))
    def test_keeps_both_ends_and_counts_the_rest(self, chunks: list[bytes]) -> None:
        log = CappedLog(head=20, tail=30)
        for chunk in chunks:
            log.write(chunk)
        data = b"".join(chunks)
        assert log.total == len(data)
        assert log.dropped == max(0, len(data) - 50)
        expected = data
        if log.dropped:
            expected = data[:20] + f"\n[{log.dropped} bytes left out]\n".encode() + data[-30:]
        assert log.content() == expected
