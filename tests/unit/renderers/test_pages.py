"""README.md, the preview and CITATION.cff: what they say, and that nothing a stranger writes gets out of its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import small_archive
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from preserve.digest import Digest
from preserve.documents.archive import Contents
from preserve.renderers import citation, preview, readme, wording

HOSTILE = st.text() | st.text(alphabet="<>&\"'`\\|[]()#*_!-=\n\r\t:/@.w \x1b\u202e\ud800{}$~", max_size=30)
Render = Callable[[Contents], bytes]


class _Shape(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.text: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))


def _named(text: str) -> Contents:
    """Contents in which a stranger's text stands wherever one can."""
    image = replace(small_archive.IMAGE, reference=text)
    step = replace(small_archive.STEPS[0], stage=text)
    author = replace(small_archive.plan().authors[0], name=text, orcid=text)
    changes = {"title": text, "license": text, "authors": (author,), "images": {"tiny": image}}
    return small_archive.contents(changes={**changes, "steps": (step, *small_archive.STEPS[1:])}, without="images")


TAME = _named("tame")


@given(text=HOSTILE)
def test_no_text_becomes_markup_in_the_preview(text: str) -> None:
    assert _Shape(preview.render(_named(text))).tags == _Shape(preview.render(TAME)).tags


def _tokens(document: bytes) -> list[tuple[str, str]]:
    """A Markdown document's tokens in order, with their tags; the words of its texts are left out."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = parser.parse(document.decode())
    return [(part.type, part.tag) for token in found for part in (token, *(token.children or ()))]


def _bare(tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without texts: an escaped character is a token of its own."""
    return [token for token in tokens if token[0] not in ("text", "text_special")]


@given(text=HOSTILE)
def test_no_text_becomes_markup_in_the_readme(text: str) -> None:
    assert _bare(_tokens(readme.render(_named(text)))) == _bare(_tokens(readme.render(TAME)))


@given(text=HOSTILE)
def test_no_address_becomes_a_link_in_the_readme(text: str) -> None:
    """Many renderers make links of bare addresses (GitHub's extension "autolinks")."""
    document = readme.render(_named(text)).decode()
    assert not re.search(r"(?<!\\):/|(?i:www)\.|(?<!\\)@", document)


@given(text=HOSTILE)
def test_no_text_gets_out_of_its_quotes_in_the_citation(text: str) -> None:
    value = yaml.safe_load(citation.render(_named(text)))
    assert value["title"] == wording.plain(text)
    assert value["authors"] == [{"name": wording.plain(text)}]
    assert set(value) <= {"cff-version", "message", "type", "title", "authors", "date-released", "license", "commit"}


@pytest.mark.parametrize("render", [preview.render, readme.render, citation.render])
def test_the_same_contents_give_the_same_bytes(render: Render) -> None:
    assert render(small_archive.contents()) == render(small_archive.contents())
    assert render(small_archive.contents()).endswith(b"\n")


def test_the_preview_fetches_and_executes_nothing() -> None:
    page = preview.render(small_archive.contents())
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("meta", [("http-equiv", "Content-Security-Policy"), ("content", policy)]) in _Shape(page).tags
    names = {name for _, attributes in _Shape(page).tags for name, _ in attributes}
    assert names <= {"http-equiv", "content", "lang", "charset", "name"}
    assert "script" not in {tag for tag, _ in _Shape(page).tags}


def test_the_preview_tells_of_steps_and_results() -> None:
    text = " ".join(_Shape(preview.render(small_archive.contents())).text)
    for step in small_archive.STEPS:
        assert step.id in text
        assert step.stage in text
    assert Digest.of(b"results/mass.json").hex in text
    assert small_archive.IMAGE.manifest_digest in text
    assert "0000-0002-1825-0097" in text
    assert small_archive.TITLE in text
    assert "preserve replay" in text
    assert "sh data/replay.sh" in text


def test_the_readme_names_results_and_their_place() -> None:
    text = readme.render(small_archive.contents()).decode()
    assert f"| results/mass.json | 17 B | {Digest.of(b'results/mass.json').hex} |" in text
    assert "preserve replay FILE.crate.zip" in text
    assert "sh data/replay.sh" in text
    assert "Complete:" in text


def test_the_readme_says_what_to_fetch_first() -> None:
    text = readme.render(small_archive.contents(without="images,inputs")).decode()
    assert "Not inside, known by digest only: images, inputs." in text
    assert str(small_archive.IMAGE.manifest_digest) in text
    assert r"from https\://data.example.org/remote.root" in text
    assert Digest.of(b"remote") in text


def test_the_readme_names_the_folders_that_are_there() -> None:
    for without, there in (("", True), ("images", False)):
        text = readme.render(small_archive.contents(without=without)).decode()
        assert ("`data/oci/`" in text) == there
        assert "`data/records/`, `data/logs/`" in text
        assert "`data/replay.sh`" in text


@pytest.mark.parametrize("render", [preview.render, readme.render])
def test_a_recast_and_changed_code_are_named(render: Render) -> None:
    parent = Digest.of(b"parent")
    source = replace(small_archive.SOURCE, clean=False)
    text = render(small_archive.contents(changes={"source": source}, parent=parent)).decode()
    assert parent in text
    assert "with uncommitted changes" in text


def test_the_citation_is_what_its_format_asks_for() -> None:
    value = yaml.safe_load(citation.render(small_archive.contents()))
    assert value == {
        "cff-version": "1.2.0",
        "message": "If you use this analysis, please cite it as below.",
        "type": "dataset",
        "title": small_archive.TITLE,
        "authors": [
            {"name": "A. Physicist", "orcid": "https://orcid.org/0000-0002-1825-0097"},
            {"name": "B. <i>Other</i>"},
        ],
        "date-released": "2026-11-23",
        "license": "CC0-1.0",
        "commit": "a" * 40,
    }


def test_the_citation_without_authors_licence_or_git() -> None:
    value = yaml.safe_load(
        citation.render(small_archive.contents(changes={"authors": (), "license": "Ask us", "source": None}))
    )
    assert value["authors"] == [{"name": "Authors not named"}]
    assert not {"license", "commit"} & set(value)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (6 * 10**15, "6000.0 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert wording.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text
