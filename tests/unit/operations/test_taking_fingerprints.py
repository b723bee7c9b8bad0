"""When fingerprints are taken, when not, and what becomes of results that harm their readers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_archive import STEPS, plan, record

from preserve.comparators import trial
from preserve.comparators.leaves import TooMuch
from preserve.digest import FilePin, hash_file
from preserve.documents.plan import Plan
from preserve.documents.record import Artifact, Record
from preserve.operations.fingerprints import find_fingerprint, take_fingerprints
from preserve.operations.folder import Folder

RESULT = "results/mass.json"
CONTENT = json.dumps({"mass": 91.2})


class Analysis:
    """An analysis folder with products in its store, and how often another process was asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "preserve.yaml").write_text("")
        self.folder = Folder(root=root)
        self.asked: list[str] = []
        self._monkeypatch, self._real = monkeypatch, trial.fingerprint
        monkeypatch.setattr(trial, "fingerprint", self._fingerprint)

    def _fingerprint(self, name: str, *arguments: object) -> bytes:
        self.asked.append(name)
        return self._real(name, *arguments)  # type: ignore[arg-type]

    def answer(self, answer: bytes | Exception) -> None:
        """Let the other process answer this."""

        def fingerprint(name: str, *arguments: object) -> bytes:
            self.asked.append(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self._monkeypatch.setattr(trial, "fingerprint", fingerprint)

    def product(self, path: str = RESULT, content: str = CONTENT) -> FilePin:
        """Put a product into the store."""
        file = self.folder.root / "made"
        file.write_text(content)
        store = self.folder.store(self.folder.hashes())
        return store.take(file)

    def take(self, *products: tuple[str, FilePin], of: Plan | None = None, look: bool = False) -> tuple[str, ...]:
        """Take what is missing of a run that made these products."""
        made = tuple(Artifact(path=path, sha256=pin.sha256, size=pin.size) for path, pin in products)
        one: Record = replace(record(STEPS[-1], 3, ()), products=made)
        store = self.folder.store(self.folder.hashes())
        return take_fingerprints(self.folder, of or plan(), [one], store, look=look)


@pytest.fixture
def analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Analysis]:
    yield Analysis(tmp_path, monkeypatch)


def test_it_is_taken_once_for_a_content(analysis: Analysis) -> None:
    pin = analysis.product()
    assert analysis.take((RESULT, pin)) == ()
    assert analysis.take((RESULT, pin)) == ()
    assert analysis.asked == [RESULT]
    found = find_fingerprint(analysis.folder, RESULT, pin)
    assert found is not None
    assert (found.reader, found.sha256, found.size) == ("json", pin.sha256, pin.size)
    [leaf] = found.leaves
    assert leaf.values == (91.2,)
    other = analysis.product(content='{"mass": 91.3}')
    analysis.take((RESULT, other))
    assert analysis.asked == [RESULT, RESULT]
    assert find_fingerprint(analysis.folder, RESULT, pin) == found


def test_only_results_have_one(analysis: Analysis) -> None:
    pin = analysis.product()
    analysis.take(("selected/events.json", pin), ("results/plots/a.json", pin))
    assert analysis.asked == ["results/plots/a.json"]
    analysis.take((RESULT, pin), of=plan(results={}))
    assert analysis.asked == ["results/plots/a.json"]


def test_what_is_no_longer_in_the_store_is_passed_over(analysis: Analysis) -> None:
    pin = replace(analysis.product(), sha256=hash_file(Path(__file__)).sha256)
    assert analysis.take((RESULT, pin)) == ()
    assert analysis.asked == []
    assert find_fingerprint(analysis.folder, RESULT, pin) is None


@pytest.mark.parametrize(("missing", "times"), [("json", 2), ("no_such_module", 1)])
def test_one_without_leaves_is_taken_again_when_the_library_is_there(
    analysis: Analysis, missing: str, times: int
) -> None:
    pin = analysis.product()
    analysis.answer(unread(pin, missing))
    [note] = analysis.take((RESULT, pin))
    assert note == f"should {RESULT} be lost, only its digest will be known: {missing} is not installed"
    assert find_fingerprint(analysis.folder, RESULT, pin) is not None
    analysis.take((RESULT, pin))
    assert len(analysis.asked) == times


def test_the_better_one_takes_the_place_of_the_other(analysis: Analysis) -> None:
    pin = analysis.product()
    complete = trial.fingerprint(RESULT, analysis.folder.store(analysis.folder.hashes()).path(pin), pin, trial.Limits())
    analysis.answer(unread(pin, "json"))
    analysis.take((RESULT, pin))
    analysis.answer(complete)
    assert analysis.take((RESULT, pin)) == ()
    found = find_fingerprint(analysis.folder, RESULT, pin)
    assert found is not None
    assert found.to_bytes() == complete
    assert len(list((analysis.folder.state / "fingerprints").rglob("*.json"))) == 1


def unread(pin: FilePin, missing: str) -> bytes:
    from preserve.documents.fingerprint import Fingerprint  # noqa: PLC0415

    why = f"{missing} is not installed"
    return Fingerprint(sha256=pin.sha256, size=pin.size, reader="root", obstacle=why, missing=missing).to_bytes()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (TooMuch("its reader was not done after 30 seconds"), "not done after 30 seconds"),
        (b"{}", "its fingerprint: its schema is None"),
    ],
)
def test_a_result_that_harms_its_reader_is_known_by_its_bytes(
    analysis: Analysis, answer: bytes | Exception, said: str
) -> None:
    pin = analysis.product()
    analysis.answer(answer)
    [note] = analysis.take((RESULT, pin))
    assert said in note
    found = find_fingerprint(analysis.folder, RESULT, pin)
    assert found is not None
    assert (found.leaves, found.missing) == ((), None)
    assert said in (found.obstacle or "")


def test_a_damaged_one_is_taken_again(analysis: Analysis) -> None:
    pin = analysis.product()
    analysis.answer(unread(pin, "no_such_module"))
    analysis.take((RESULT, pin))
    [place] = (analysis.folder.state / "fingerprints").rglob("*.json")
    place.write_bytes(place.read_bytes()[:-5])
    assert find_fingerprint(analysis.folder, RESULT, pin) is None
    analysis.take((RESULT, pin))
    assert find_fingerprint(analysis.folder, RESULT, pin) is not None


def test_archive_looks_into_those_that_are_there(analysis: Analysis) -> None:
    pin = analysis.product()
    analysis.take((RESULT, pin))
    [place] = (analysis.folder.state / "fingerprints").rglob("*.json")
    whole = place.read_bytes()
    place.write_bytes(whole[:-5])
    analysis.take((RESULT, pin))
    assert place.read_bytes() == whole[:-5]
    analysis.take((RESULT, pin), look=True)
    assert place.read_bytes() == whole
    analysis.take((RESULT, pin), look=True)
    assert analysis.asked == [RESULT, RESULT]


def test_names_decide_how_a_content_is_read(analysis: Analysis) -> None:
    pin = analysis.product(content="1,2\n3,4\n")
    analysis.take(("results/plots/a.csv", pin), ("results/plots/a.txt.yaml", pin))
    readers = [
        found.reader
        for path in ("results/plots/a.csv", "results/plots/a.txt.yaml")
        if (found := find_fingerprint(analysis.folder, path, pin)) is not None
    ]
    assert readers == ["csv", "yaml"]


def test_a_run_imports_nothing_that_reads_results() -> None:
    code = (
        "import preserve.operations.run, sys; print(sorted({'numpy', 'preserve.comparators.trial'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
