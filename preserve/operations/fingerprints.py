"""Fingerprints of results: taken when a run ends, kept in the analysis folder, looked up when the bytes are gone."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from preserve.digest import Digest, FilePin
from preserve.documents.archive import is_result
from preserve.documents.counted import counted
from preserve.documents.fingerprint import MOST_WORDS, READERS, Fingerprint, read_fingerprint
from preserve.documents.plan import Plan
from preserve.documents.record import Record
from preserve.errors import PreserveError, UserError
from preserve.operations.folder import Folder, pin_of, write_file
from preserve.stores.objects import ObjectStore

LARGE = 200 << 20  # bytes that take a few seconds to read


def take_fingerprints(
    folder: Folder,
    plan: Plan,
    records: Iterable[Record],
    store: ObjectStore,
    *,
    say: Callable[[str], None] = lambda text: None,
    look: bool = False,
) -> tuple[str, ...]:
    """Take the fingerprints of results in the store that have none yet; gives notes for the user.

    Results may hold anything: another process reads them, and is only started if something has to be read. ``look``
    into fingerprints that are there: a damaged one is taken again.
    """
    products = [product for record in records for product in record.products if is_result(plan, product.path)]
    missing = [product for product in products if not _is_taken(folder, product.path, pin_of(product), look)]
    missing = [product for product in missing if store.holds(pin_of(product))]
    if (size := sum(product.size for product in missing)) > LARGE:
        say(f"reading {counted(len(missing), 'result')} for their fingerprints ({size / 1e9:.1f} GB)")
    notes = []
    for product in missing:
        found = _taken(product.path, pin_of(product), store.path(pin_of(product)))
        _keep(folder, product.path, found)
        if found.obstacle is not None:
            notes.append(f"should {product.path} be lost, only its digest will be known: {found.obstacle}")
    return tuple(notes)


def find_fingerprint(folder: Folder, path: str, pin: FilePin) -> Fingerprint | None:
    """Give the fingerprint of a result's content; ``None``: none was taken, or it can no longer be read."""
    found = (_read(place, pin) for place in _places(folder, path, pin))
    return next((one for one in found if one is not None), None)


def _keep(folder: Folder, path: str, found: Fingerprint) -> None:
    places = _places(folder, path, FilePin(sha256=found.sha256, size=found.size))
    target, other = places if found.missing is None else places[::-1]
    write_file(target, found.to_bytes())
    other.unlink(missing_ok=True)


def _read(place: Path, pin: FilePin) -> Fingerprint | None:
    """Read a fingerprint of our own; one that is damaged is as good as none, for it can be taken again."""
    try:
        found = read_fingerprint(place.read_bytes(), str(place))
    except (FileNotFoundError, UserError):
        return None
    return found if found.sha256 == pin.sha256 else None


def _places(folder: Folder, path: str, pin: FilePin) -> tuple[Path, Path]:
    """Give where the fingerprint lies: one that is complete, and one for which a library was missing.

    How a file is read depends on what it holds and on how its name ends.
    """
    ending = Digest.of(Path(path).name.encode()).short[:8]
    top = folder.state / "fingerprints" / pin.sha256.hex[:2]
    stem = f"{pin.sha256.hex[2:]}-{ending}.{READERS}"
    return top / f"{stem}.json", top / f"{stem}.unread.json"


def _is_taken(folder: Folder, path: str, pin: FilePin, look: bool) -> bool:
    """Whether there is a fingerprint that cannot be bettered by now."""
    complete, unread = _places(folder, path, pin)
    if complete.exists() and (not look or _read(complete, pin) is not None):
        return True
    if not unread.exists():
        return False
    found = _read(unread, pin)
    return found is not None and found.missing is not None and importlib.util.find_spec(found.missing) is None


def _taken(path: str, pin: FilePin, file: Path) -> Fingerprint:
    from preserve.comparators import trial  # noqa: PLC0415  (a run without results has no need of it)
    from preserve.comparators.leaves import Limits, MissingExtra, TooMuch, Unreadable  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="preserve-fingerprint-") as scratch:
        link = Path(scratch) / Path(path).name  # readers go by names
        link.symlink_to(file.absolute())
        try:
            return read_fingerprint(trial.fingerprint(path, link, pin, Limits()), "its fingerprint")
        except (TooMuch, Unreadable, MissingExtra, PreserveError) as error:
            why = str(error).encode("utf-8", "backslashreplace").decode()[:MOST_WORDS]
            return Fingerprint(sha256=pin.sha256, size=pin.size, reader="bytes", obstacle=why)
