"""The analysis' code in git: what is committed, its history as one file, and what differs from it."""

from preserve.sources.bundle import bundle
from preserve.sources.checking import check_bundle
from preserve.sources.patch import patch
from preserve.sources.work_tree import Sources, differs, read_sources, uncommitted

__all__ = ["Sources", "bundle", "check_bundle", "differs", "patch", "read_sources", "uncommitted"]
