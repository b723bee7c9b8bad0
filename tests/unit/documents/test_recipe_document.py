"""image.yaml and hash-locked requirements: what they may say, and what is said of what they may not."""

from __future__ import annotations

import pytest

from preserve.documents.recipe import DebianPart, read_recipe
from preserve.documents.requirements import read_requirements
from preserve.errors import DocumentError

GOOD = b"""
debian: {suite: bookworm, packages: [python3-minimal, busybox-static]}
python: requirements.lock
files: {opt/tool.py: tool.py, opt/share/: data/}
environment: {PATH: /opt/bin:/usr/bin, EMPTY: ""}
"""
ONE, TWO = "a" * 64, "b" * 64


def test_a_recipe_is_read() -> None:
    recipe = read_recipe(GOOD, "image/image.yaml")
    assert recipe.debian == DebianPart(suite="bookworm", packages=("busybox-static", "python3-minimal"))
    assert recipe.python == "requirements.lock"
    assert recipe.files == {"opt/tool.py": "tool.py", "opt/share/": "data/"}
    assert recipe.environment == {"PATH": "/opt/bin:/usr/bin", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("python: a.lock", 1, '"debian" is missing'),
        ("debian: {suite: bookworm}", 1, '"packages" is missing'),
        ("debian:\n  suite: Bookworm\n  packages: [dash]", 2, "code name"),
        ("debian:\n  suite: bookworm\n  packages:\n  - dash\n  - Dash", 5, '"Dash" is not the name'),
        ("debian:\n  suite: bookworm\n  packages: [dash=1.0]", 3, '"dash=1.0" is not the name'),
        ("debian: {suite: bookworm, packages: [dash]}\npyton: a", 2, "did you mean"),
        ("debian: {suite: bookworm, packages: [dash]}\npython: ../a", 2, "leaves the folder"),
        ("debian: {suite: bookworm, packages: [dash]}\nfiles:\n  /opt/a: a", 3, "is absolute"),
        ("debian: {suite: bookworm, packages: [dash]}\nfiles:\n  opt/a/: a", 3, "a folder ends in /"),
        ("debian: {suite: bookworm, packages: [dash]}\nfiles:\n  opt/a: ../../a", 3, "leaves the folder"),
        ("debian: {suite: bookworm, packages: [dash]}\nenvironment:\n  A-B: c", 3, "name of a variable"),
        ("debian: {suite: bookworm, packages: [dash]}\nenvironment:\n  N: 1", 3, "in quotes"),
        ("debian: {suite: bookworm, packages: [dash]}\ndebian: {}", 2, "stands twice"),
        ("- a", 1, "must be a mapping"),
        ("debian: [", 1, "close every ["),
        ("debian:\n  suite: bookworm\n  packages: []", 3, "names no package"),
    ],
)
def test_a_fault_is_told_with_its_line(text: str, line: int, part: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_recipe(text.encode(), "image.yaml")
    assert any(fault.line == line and part in str(fault) for fault in caught.value.faults), str(caught.value)


def test_locked_requirements_are_read_in_one_order() -> None:
    text = f"# made\nZope.Event[x]==5.0 \\\n    --hash=sha256:{ONE} \\\n    --hash=sha256:{TWO}\n    # via -r in\n"
    found = read_requirements((text + f"awkward-cpp == 57+local --hash=sha256:{ONE}\n").encode(), "r.lock")
    assert [(each.name, each.version, len(each.hashes), each.line) for each in found] == [
        ("awkward-cpp", "57+local", 1, 6),
        ("zope-event", "5.0", 2, 2),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("six==1.0", "no --hash"),
        (f"six>=1.0 --hash=sha256:{ONE}", "name==version"),
        (f"six==1.0 --hash=md5:{ONE}", "no --hash"),
        (f"six==1.0 --hash=sha256:{ONE[1:]}", "no --hash"),
        (f"six==1.0 ; python_version < '3' --hash=sha256:{ONE}", "marker"),
        ("--index-url=there", "option --index-url=there is refused"),
        ("-r other.txt", "option -r is refused"),
        (f"six==1.0 --hash=sha256:{ONE}\nSix==2.0 --hash=sha256:{ONE}", "six stands twice"),
        (f"git+https://there/x.git --hash=sha256:{ONE}", "name==version"),
    ],
)
def test_what_is_not_locked_is_refused(text: str, part: str) -> None:
    with pytest.raises(DocumentError, match=r"r\.lock:") as caught:
        read_requirements(text.encode(), "r.lock")
    assert part in str(caught.value)
