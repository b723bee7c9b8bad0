"""Package archives (.deb, .whl) kept by digest, so that an image can be built again when no mirror has them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from preserve.digest import Digest, hash_file
from preserve.errors import DigestMismatch


class Parcels:
    """A folder of files named by their sha256, hashed again whenever one is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, digest: Digest) -> bool:
        """Whether the file is here and whole; one that has changed is removed, as if it had never been here."""
        path = self._path(digest)
        if not path.is_file():
            return False
        if hash_file(path).sha256 == digest:
            return True
        path.unlink()
        return False

    def path(self, digest: Digest, what: str) -> Path:
        """Path of a file that is here and whole; ``what`` names it in messages.

        Raises:
            DigestMismatch: it is not.
        """
        if not self.has(digest):
            raise DigestMismatch(f"{what}: its file {digest} is not in {self.folder}, or was changed there")
        return self._path(digest)

    def put(self, source: Path) -> Digest:
        """Keep a copy of a file and give its digest."""
        digest = hash_file(source).sha256
        if not self.has(digest):
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".writing-", delete=False) as target:
                with source.open("rb") as stream:
                    shutil.copyfileobj(stream, target)
                target.flush()
                os.fsync(target.fileno())
            Path(target.name).replace(self._path(digest))
        return digest

    def _path(self, digest: Digest) -> Path:
        return self.folder / digest.hex
