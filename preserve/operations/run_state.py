"""What a run knows while it goes on: which files have which content, which steps are done, which failed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from preserve.digest import Digest, FilePin
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Artifact, Record, step_key
from preserve.operations.folder import Folder, Situation, pin_of
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore


@dataclass(slots=True)
class RunState:
    """What is known while a run goes on; what several steps look at is changed only under ``lock``.

    ``documents`` are the bytes of preserve.yaml and preserve.lock; ``pins`` are those of the files in the folder that
    steps start from, ``known`` those and the products', by path; ``placed`` maps a product's path to the digest that
    was put there; ``folders`` (which of its outputs are), ``records`` and ``failures`` are by step id, ``ran`` names
    steps that ran now; ``notes`` are for the user.
    """

    folder: Folder
    plan: Plan
    documents: Mapping[str, bytes]
    pins: Mapping[str, FilePin]
    hashes: HashMemory
    store: ObjectStore
    known: dict[str, FilePin]
    placed: dict[str, str]
    folders: Mapping[str, tuple[str, ...]]
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, Record] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: bool = False

    @classmethod
    def at_start(cls, folder: Folder, situation: Situation, hashes: HashMemory) -> Self:
        """Give what is known before anything is looked up."""
        return cls(
            folder=folder,
            plan=situation.plan,
            documents=situation.documents,
            pins=situation.pins,
            hashes=hashes,
            store=folder.store(hashes),
            known=dict(situation.pins),
            placed=folder.placed(),
            folders={step.id: tuple(o for o in step.outputs if o.endswith("/")) for step in situation.plan.steps},
        )

    def config_digest(self, step: PlannedStep) -> Digest:
        """Give the config digest of the step's image."""
        return self.plan.images[step.image].config_digest

    def usable(self, step: PlannedStep, read: tuple[Artifact, ...]) -> Record | None:
        """Give the record of an earlier run of just this, if all its products and its log are still here."""
        record = self.folder.find_record(step_key(step, self.config_digest(step), read))
        if record is None:
            return None
        if not all(self.store.holds(pin_of(file)) for file in (*record.products, *record.logs.values())):
            return None
        logs = {name: replace(log, path=f"logs/{step.id}/{name}") for name, log in record.logs.items()}
        pin = self.plan.images[step.image]
        image = replace(record.image, name=step.image, manifest_digest=pin.manifest_digest)
        # step and image may have had other names then; a manifest is one more, for the same config and layers
        return replace(record, step=step.id, image=image, logs=logs)

    def learn(self, step: PlannedStep, record: Record) -> None:
        """Take a step for done, with the products that its record names."""
        with self.lock:
            self.records[step.id] = record
            self.known.update({product.path: pin_of(product) for product in record.products})
