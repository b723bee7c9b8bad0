"""Whatever is done to a valid file: it is read and planned, or complained about in words. Nothing else happens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from preserve.documents.planning import expand
from preserve.documents.reading import read_workflow
from preserve.errors import DocumentError, UserError

VALID = Path(__file__).parents[2] / "data" / "valid" / "full.yaml"
TRACKED = ("code/assemble.py", "code/fit.py", "code/histogram.py", "code/select.py")
SPECIALS = (
    *(b"&a *a !!str !x << : - ? | > % @ ` { } [ ] , # ' \" \\ --- ... ~ null true .inf 1e999 0x 0o8".split(b" ")),
    *(b"\t", b"\r", b"\0", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\n\n", b"${{", b"}}", b"$${{"),
    *(b"${{ x }}", b"../", b"/", b"*", b"**/", b"[a-", b"?", b"{a: [" * 9, b"9" * 400, b"\xf0\x9f\x98\x80", b"'\"'"),
)


def mutated(data: bytes, random_: random.Random) -> bytes:
    """One to four changes."""
    for _ in range(random_.randint(1, 4)):
        data = random_.choice(CHANGES)(data, random_)
    return data


def flip(data: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random_.randrange(8))]) + data[at + 1 :]


def delete(data: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(data))
    return data[:at] + data[at + random_.randint(1, 30) :] or b"x"


def repeat_line(data: bytes, random_: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = random_.randrange(len(lines))
    lines.insert(random_.choice((at, random_.randrange(len(lines)))), lines[at])
    return b"\n".join(lines)


def drop_line(data: bytes, random_: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[random_.randrange(len(lines))]
    return b"\n".join(lines) or b"x"


def swap_tokens(data: bytes, random_: random.Random) -> bytes:
    tokens = data.split(b" ")
    one, other = random_.randrange(len(tokens)), random_.randrange(len(tokens))
    tokens[one], tokens[other] = tokens[other], tokens[one]
    return b" ".join(tokens)


def insert_special(data: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(data))
    return data[:at] + random_.choice(SPECIALS) + data[at:]


CHANGES = (flip, delete, repeat_line, drop_line, swap_tokens, insert_special)


def outcome(data: bytes) -> str:
    """``read`` or ``refused``; any other exception passes."""
    try:
        expand(read_workflow(data, "preserve.yaml"), tracked=TRACKED)
    except DocumentError as error:
        assert error.faults
        assert all(f.line >= 1 and f.column >= 1 and f.message for f in error.faults)
        str(error).encode()
        return "refused"
    except UserError:
        return "refused"
    return "read"


@pytest.mark.parametrize("seed", range(20))
def test_mutations(seed: int) -> None:
    random_ = random.Random(seed)  # noqa: S311 - the same mutations every time
    valid = VALID.read_bytes()
    outcomes = [outcome(mutated(valid, random_)) for _ in range(100)]
    assert {"read", "refused"} == set(outcomes)


def test_the_unchanged_file_is_read() -> None:
    assert outcome(VALID.read_bytes()) == "read"


def test_every_beginning_of_the_file() -> None:
    valid = VALID.read_bytes()
    assert {outcome(valid[:end]) for end in range(0, len(valid), 7)} == {"read", "refused"}
