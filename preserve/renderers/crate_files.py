"""The files of the crate: what they hold, what they were called, and what is known of those that are not inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.documents.record import Artifact
from preserve.renderers.crate_entities import ROOT, Entity, quoted, set_values
from preserve.renderers.media_types import media_type


class Files:
    """The files of the crate as entities, each described once, by ``@id``.

    ``examples`` names the formal parameters that a file is the value of, by its path.
    """

    def __init__(self, contents: Contents, examples: Mapping[str, Sequence[str]]) -> None:
        self.entities: dict[str, Entity] = {}
        self._ids: dict[str, str] = {}
        self._examples = examples
        self._fingerprints = {name: path for path, name in contents.fingerprints.items()}
        for path in contents.names:
            self._add_known(contents, path)
        for name in contents.payload:
            if name not in self.entities and name != archive.WORKFLOW and not name.startswith(archive.OCI):
                self._add_payload(contents, name)
        if any(name.startswith(archive.OCI) for name in contents.payload):
            self.entities[archive.OCI] = _layout(contents)
        self.entities[archive.README] = _readme()

    def references(self, files: Iterable[Artifact]) -> list[Entity]:
        """References to the files that a record names; one that the contents do not know has no entity."""
        return [{"@id": self._ids[file.path]} for file in files if file.path in self._ids]

    def reference(self, path: str) -> Entity:
        """Reference to one file of the analysis."""
        return {"@id": self._ids[path]}

    def _add_known(self, contents: Contents, path: str) -> None:
        name, pin = contents.names[path], contents.pins[path]
        inside = contents.holds(path)
        identifier = name if inside else f"#file/{quoted(path)}"
        entity = _file(identifier, path, pin.sha256.hex, pin.size)
        source = contents.plan.inputs.get(path)
        if source is not None and source.url is not None:
            entity["url"] = source.url
        if not inside:
            entity["description"] = "Not in this archive: known by its sha256."
        elif not name.endswith("/" + path):
            entity["alternateName"] = path
        set_values(entity, "exampleOfWork", [{"@id": parameter} for parameter in self._examples.get(path, ())])
        self._ids[path] = identifier
        self.entities[identifier] = entity

    def _add_payload(self, contents: Contents, name: str) -> None:
        pin = contents.payload[name]
        entity = self.entities[name] = _file(name, name.removeprefix(archive.DATA), pin.sha256.hex, pin.size)
        if name in self._fingerprints:
            entity["about"] = self.reference(self._fingerprints[name])
            entity["description"] = "What a result holds, part by part: it is judged by this where its bytes are lost."


def _file(identifier: str, name: str, sha256: str, size: int) -> Entity:
    return {
        "@id": identifier,
        "@type": "File",
        "name": name,
        "sha256": sha256,
        "contentSize": str(size),
        "encodingFormat": media_type(name),
    }


def _layout(contents: Contents) -> Entity:
    size = sum(pin.size for name, pin in contents.payload.items() if name.startswith(archive.OCI))
    return {
        "@id": archive.OCI,
        "@type": "Dataset",
        "name": "Container images",
        "description": "An OCI image layout with the image of every step; docker load takes it too.",
        "contentSize": str(size),
    }


def _readme() -> Entity:
    return {
        "@id": archive.README,
        "@type": "File",
        "name": archive.README,
        "about": {"@id": ROOT},
        "encodingFormat": media_type(archive.README),
    }
