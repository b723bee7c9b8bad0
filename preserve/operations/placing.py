"""Products in their places in the analysis folder: never over a file of the user's."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from preserve.documents.counted import some
from preserve.documents.plan import Plan
from preserve.documents.record import Record
from preserve.errors import UserError
from preserve.operations.folder import pin_of
from preserve.operations.run_state import RunState

NAMED = 20  # files that a hint names one by one


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
        if not path.endswith("/") and os.path.lexists(root / path) and path not in state.placed
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


def place(state: RunState, record: Record) -> int:
    """Put a step's products in their places in the analysis folder; what was edited by hand is kept aside.

    Give how many took the place of another run's.
    """
    exchanged = 0
    for product in record.products:
        target = state.folder.root / product.path
        pin = pin_of(product)
        if target.is_file() and not target.is_symlink():
            found = state.hashes.pin(target)
            if found.sha256 == pin.sha256:
                state.placed[product.path] = pin.sha256
                continue
            if state.placed.get(product.path) != found.sha256:
                _set_aside(state, product.path)
            else:
                exchanged += 1
        elif os.path.lexists(target):
            _set_aside(state, product.path)
        state.store.place(pin, target)
        state.hashes.remember(target, pin)
        state.placed[product.path] = pin.sha256
    return exchanged


def _set_aside(state: RunState, path: str) -> None:
    kept = state.folder.state / "displaced" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f") / path
    kept.parent.mkdir(parents=True)
    (state.folder.root / path).replace(kept)
    shown = kept.relative_to(state.folder.root)
    state.notes.append(f"{path} was changed after it was made; it is made again (what stood there: {shown})")
