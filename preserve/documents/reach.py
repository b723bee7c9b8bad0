"""What a step did beyond its declaration, or left undone of it: inputs it never opened, files it did not declare."""

from __future__ import annotations

from dataclasses import dataclass

from preserve.documents import jsonform
from preserve.documents.counted import some
from preserve.documents.typed import typed
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/reach/1"
SHOWN = 3  # paths that a line for people names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Of one step that ran: ``unopened`` are declared inputs (known only when they were watched), ``strays`` files in
    its output folders that are no products; these are thrown away."""

    step: str
    unopened: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Say it to people; nothing when all is as declared."""
        found = []
        if self.unopened:
            found.append(f"step {self.step} never opened an input it declares: {some(self.unopened, SHOWN)}")
        if self.strays:
            found.append(
                f"step {self.step} wrote what it does not declare, and that is gone: {some(self.strays, SHOWN)}"
            )
        return tuple(found)

    def to_bytes(self) -> bytes:
        """Give the bytes of reach/<step>.json."""
        return jsonform.dump({"schema": SCHEMA, **jsonform.members(self)})


def read_reach(data: bytes, file: str) -> Reach:
    """Read reach/<step>.json.

    Raises:
        UserError: it is damaged or of another version.
    """
    value = jsonform.load(data, file, schema=SCHEMA)
    value.pop("schema")
    try:
        return typed(Reach(**{**value, "unopened": tuple(value["unopened"]), "strays": tuple(value["strays"])}))
    except (KeyError, TypeError, ValueError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}") from error


def unopened_inputs(declared: tuple[str, ...], unopened: tuple[str, ...], files: tuple[str, ...]) -> tuple[str, ...]:
    """Give the declared inputs of which no file was opened; a folder has ``/`` at its end."""
    opened = set(files) - set(unopened)
    return tuple(
        path
        for path in declared
        if not any(one == path or (path.endswith("/") and one.startswith(path)) for one in opened)
    )
