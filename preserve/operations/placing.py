"""Products in their places in the analysis folder: never over a file of the user's."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum, auto

from preserve.documents.counted import counted, some
from preserve.documents.plan import Plan, as_written
from preserve.documents.record import Artifact, Record
from preserve.errors import MachineError, UserError
from preserve.operations.folder import pin_of
from preserve.operations.run_state import RunState

NAMED = 20  # files that a hint names one by one


class Standing(Enum):
    """What stands where a product belongs: nothing (where one was, or never was), it, another run's, a hand's work.

    ``FORMER``: where none belongs, one of an earlier run.
    """

    FREE = auto()
    MISSING = auto()
    RIGHT = auto()
    ANOTHER = auto()
    EDITED = auto()
    FOREIGN = auto()
    FORMER = auto()


_KEPT_ASIDE = {
    Standing.EDITED: "was changed after it was made",
    Standing.FOREIGN: "stood where a product belongs, and no run of preserve made it",
}


def refuse_strangers(state: RunState, plan: Plan) -> None:
    """Refuse to run where a file that no run made stands in a product's place.

    Raises:
        UserError: one does; the message names it.
    """
    root = state.folder.root
    strange = [
        path
        for step in plan.steps
        for path in step.outputs
        if not path.endswith("/") and os.path.lexists(root / path) and not state.placed.get(path)
    ]
    # a run killed before it wrote down what it placed: the file is what the records say
    strange = [path for path in strange if not _is_known_product(state, path)]
    if strange:
        message, hint = in_the_way(strange)
        raise UserError(message, hint=hint)


def in_the_way(paths: Sequence[str]) -> tuple[str, str]:
    """What to say and do about files in the way: the user's own, or left when .preserve/ was removed."""
    verb, they, them = ("stands", "it is", "it") if len(paths) == 1 else ("stand", "they are", "them")
    message = f"{some(paths, 1)} {verb} where a step puts its product, and no run of preserve made {them}"
    remove = f"rm {shlex.join(paths)}" if len(paths) <= NAMED else f"remove {them}"
    return message, f"move {them} away; or, if {they} of a run whose .preserve/ is gone: {remove}"


def _is_known_product(state: RunState, path: str) -> bool:
    target = state.folder.root / path
    return target.is_file() and not target.is_symlink() and state.store.path(state.hashes.pin(target)).exists()


def standing(state: RunState, product: Artifact) -> Standing:
    """Say what stands where a product belongs."""
    target = state.folder.root / product.path
    if not os.path.lexists(target):
        return Standing.MISSING if state.placed.get(product.path) else Standing.FREE
    found = state.hashes.pin(target).sha256 if target.is_file() and not target.is_symlink() else None
    if found == product.sha256:
        return Standing.RIGHT
    placed = state.placed.get(product.path)
    if found == placed or _is_known_product(state, product.path):  # a killed run may not have noted what it placed
        return Standing.ANOTHER
    return Standing.EDITED if placed else Standing.FOREIGN


def place(state: RunState, record: Record) -> Counter[Standing]:
    """Put a step's products in their places in the analysis folder; what is not a run's is kept aside, with a note.

    Give what stood there, with how often.

    Raises:
        MachineError: no room, or no right to write there.
    """
    stood: Counter[Standing] = Counter()
    for product in record.products:
        target, pin = state.folder.root / product.path, pin_of(product)
        found = standing(state, product)
        if found in _KEPT_ASIDE:
            _set_aside(state, product.path, _KEPT_ASIDE[found])
        if found is not Standing.RIGHT:
            state.store.place(pin, target)
            state.hashes.remember(target, pin)
        state.placed[product.path] = pin.sha256
        stood[found] += 1
    if former := _former(state, record):
        stood[Standing.FORMER] += len(former)
        _remove(state, record, former)
    return stood


def place_all(state: RunState) -> bool:
    """Put the products of all steps that are done in their places, with notes; give whether any was not there."""
    stood = sum((place(state, record) for record in state.records.values()), Counter[Standing]())
    if stood[Standing.MISSING]:
        state.notes.append(f"{counted(stood[Standing.MISSING], 'missing product')} put back")
    if stood[Standing.ANOTHER]:
        products = counted(stood[Standing.ANOTHER], "product")
        state.notes.append(f"{products} exchanged for those of {as_written(state.plan)}, which an earlier run made")
    return stood.keys() != {Standing.RIGHT}


def would_place(state: RunState) -> bool:
    """Note what ``place_all`` would change, for a dry run; give whether any product is not there."""
    products = [product for record in state.records.values() for product in record.products]
    found = [(standing(state, product), product.path) for product in products]
    stood = Counter(one for one, _ in found)
    edited = [path for one, path in found if one in _KEPT_ASIDE]
    if edited:
        state.notes.append(f"{some(edited, 3)} changed by hand: a run puts the product there, and keeps what it finds")
    if stood[Standing.MISSING]:
        state.notes.append(f"{counted(stood[Standing.MISSING], 'missing product')} would be put back")
    if stood[Standing.ANOTHER]:
        others = counted(stood[Standing.ANOTHER], "product")
        state.notes.append(f"{others} would be exchanged for those of {as_written(state.plan)}")
    if former := [path for record in state.records.values() for path in _former(state, record)]:
        state.notes.append(f"{some(former, 3)} would be removed: made by an earlier run, and no more")
    return bool(former) or stood.keys() != {Standing.RIGHT}


def _set_aside(state: RunState, path: str, why: str) -> None:
    kept = state.folder.state / "displaced" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f") / path
    try:
        kept.parent.mkdir(parents=True)
        shutil.move(state.folder.root / path, kept)  # a folder of products may be a link to another disk
    except OSError as error:
        raise MachineError(
            f"cannot keep {path} aside, where a product belongs: {error.strerror}", hint=f"move it away: {path}"
        ) from error
    state.notes.append(
        f"{path} {why}; the product is in its place, what stood there in {kept.relative_to(state.folder.root)}"
    )


def _former(state: RunState, record: Record) -> list[str]:
    """Files in a step's folders that an earlier run of it put there, untouched since, and that it makes no more."""
    folders, made = state.folders[record.step], {product.path for product in record.products}
    if not folders:
        return []
    noted = [path for path, digest in state.placed.items() if digest and path.startswith(folders)]
    return [path for path in noted if path not in made and _is_as_placed(state, path)]


def _remove(state: RunState, record: Record, former: list[str]) -> None:
    for path in former:
        (state.folder.root / path).unlink()
        del state.placed[path]
    state.notes.append(f"{some(former, 3)} removed: an earlier run made it, step {record.step} makes it no more")


def _is_as_placed(state: RunState, path: str) -> bool:
    """Whether a file is what a run put there, untouched, and the store has it too."""
    target = state.folder.root / path
    if not target.is_file() or target.is_symlink():
        return False
    pin = state.hashes.pin(target)
    return pin.sha256 == state.placed[path] and state.store.path(pin).exists()
