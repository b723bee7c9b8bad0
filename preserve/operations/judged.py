"""Pairs of files to verdicts: what replay and diff have in common."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from preserve.comparators.choosing import Obstacle
from preserve.comparators.comparing import FileFacts, Sides, compare_files
from preserve.comparators.judging import Compared, judge, refuse_idle_rules
from preserve.comparators.leaves import Limits
from preserve.digest import FilePin
from preserve.documents.archive import result_of, rule_of
from preserve.documents.comparison import Judged
from preserve.documents.fingerprint import Fingerprint, read_fingerprint
from preserve.documents.plan import Plan
from preserve.documents.policy import Policy, read_policy
from preserve.errors import UserError
from preserve.operations.fingerprints import find_fingerprint
from preserve.operations.folder import Folder
from preserve.operations.opened import Opened, read_payload
from preserve.stores.damage import damaged
from preserve.stores.objects import ObjectStore
from preserve.stores.unpacking import unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One of the two files: its content's pin, and where its bytes are (``None``: not at hand).

    ``fingerprint`` gives what is known of it in that case.
    """

    pin: FilePin
    file: Path | None
    fingerprint: Callable[[], Fingerprint | None] = field(default=lambda: None)

    def stand_in(self) -> Fingerprint | None:
        """Give the fingerprint, if the bytes are not at hand."""
        return self.fingerprint() if self.file is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A file of both sides, and how it is to be judged; ``declared`` names the policy's entry under ``results:``.

    ``read_as``: the name by which its content is read, where that stands in other files (of a dumper); ``obstacle``:
    why it cannot be compared beyond its bytes.
    """

    path: str
    declared: str
    policy: Policy
    recorded: Version | None
    found: Version | None
    read_as: str | None = None
    obstacle: str | None = None


LIMITS = Limits()
READER = "command"  # what reads a file by a dumper is called


def judged(pairs: Sequence[Pair], limits: Limits = LIMITS) -> tuple[Judged, ...]:
    """Compare the pairs and judge them together.

    Raises:
        UserError: a rule matches nothing.
        MachineError: no room for members that have to be unpacked.
    """
    return judge(
        [
            Compared(path=one.path, declared=one.declared, policy=one.policy, facts=facts_of(one, limits))
            for one in pairs
        ]
    )


def facts_of(pair: Pair, limits: Limits) -> FileFacts:
    """Compare one pair; where a policy has rules, leaves are named even if the bytes are equal: rules must match."""
    recorded, found = pair.recorded, pair.found
    sides = Sides(
        name=pair.read_as or pair.path,
        recorded=recorded.pin if recorded else None,
        found=found.pin if found else None,
        recorded_file=recorded.file if recorded else None,
        found_file=found.file if found else None,
        recorded_print=recorded.stand_in() if recorded else None,
        found_print=found.stand_in() if found else None,
    )
    if pair.obstacle is not None:
        unread = replace(sides, recorded_file=None, found_file=None, recorded_print=None, found_print=None)
        return replace(compare_files(unread, limits), reader=READER, obstacle=Obstacle(reason=pair.obstacle))
    facts = compare_files(sides, limits, read_equal=bool(pair.policy.rules))
    return replace(facts, reader=READER) if pair.read_as else facts


def declared_policy(plan: Plan, path: str) -> tuple[str, Policy]:
    """Give the entry under ``results:`` that a product belongs to, and its policy: the default for what is no result.

    Raises:
        UserError: the policy cannot be read.
    """
    return result_of(plan, path) or path, read_policy(rule_of(plan, path))


def refuse_rules_for_nothing(plan: Plan, recorded: Mapping[str, Version]) -> None:
    """See that each rule of the plan matches a leaf of the recorded results, as far as these can be read here.

    Such a rule was meant for something that it does not loosen: better said before a run than after.

    Raises:
        UserError: one matches nothing.
    """
    policies = {path: declared_policy(plan, path) for path in recorded}
    wanted = {path: one for path, one in recorded.items() if policies[path][1].rules and not policies[path][1].command}
    compared = []
    with tempfile.TemporaryDirectory(prefix="preserve-rules-") as scratch:
        for path, version in named(wanted, Path(scratch)).items():
            declared, policy = policies[path]
            pair = Pair(path=path, declared=declared, policy=policy, recorded=version, found=version)
            compared.append(Compared(path=path, declared=declared, policy=policy, facts=facts_of(pair, LIMITS)))
        refuse_idle_rules(compared)


def named(versions: Mapping[str, Version], scratch: Path) -> dict[str, Version]:
    """Give files of a store their names back, by links in ``scratch``: readers go by them."""
    found = {}
    for number, (path, version) in enumerate(versions.items()):
        if version.file is not None:
            link = scratch / str(number) / Path(path).name
            link.parent.mkdir()
            link.symlink_to(version.file.absolute())
            version = replace(version, file=link)  # noqa: PLW2901
        found[path] = version
    return found


def stored_version(folder: Folder, store: ObjectStore, path: str, pin: FilePin) -> Version:
    """Give a product of a run: from the store, or, where that has lost it, by its fingerprint."""
    file = store.path(pin) if store.holds(pin) else None
    return Version(pin=pin, file=file, fingerprint=partial(find_fingerprint, folder, path, pin))


def archived_versions(opened: Opened, files: Mapping[str, Path]) -> dict[str, Version]:
    """Give an archive's products, by path: as they were unpacked to ``files``, or by their fingerprints."""
    pins, fingerprints = opened.contents.pins, opened.contents.fingerprints
    return {
        path: Version(
            pin=pins[path],
            file=files.get(path),
            fingerprint=partial(_archived_fingerprint, opened, fingerprints.get(path), pins[path]),
        )
        for path in opened.contents.products
    }


def _archived_fingerprint(opened: Opened, name: str | None, pin: FilePin) -> Fingerprint | None:
    """Read a result's fingerprint; a stranger may have written it.

    Raises:
        DigestMismatch: it is not what the manifest says, cannot be read, or is of another content.
    """
    if name is None or name not in opened.contents.payload:
        return None
    try:
        found = read_fingerprint(read_payload(opened, name), name)
    except UserError as error:
        raise damaged(name, error.message.removeprefix(f"{name}: ")) from error
    if found.sha256 != pin.sha256:
        raise damaged(name, "is the fingerprint of another content", pin.sha256, found.sha256)
    return found


@contextlib.contextmanager
def recorded_files(opened: Opened, paths: Sequence[str]) -> Iterator[Mapping[str, Path]]:
    """Unpack products of an archive for as long as they are looked at; those that are not inside are left out.

    Raises:
        DigestMismatch: the archive is damaged.
        MachineError: no room.
    """
    contents = opened.contents
    inside = {path: contents.names[path] for path in paths if path in contents.names and contents.holds(path)}
    with tempfile.TemporaryDirectory(prefix="preserve-recorded-") as scratch:
        target = Path(scratch)
        unpack(opened.store, target, {name: contents.payload[name] for name in inside.values()})
        yield {path: target / name for path, name in inside.items()}
