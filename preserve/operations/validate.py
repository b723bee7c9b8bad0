"""preserve validate: is preserve.yaml right?"""

from __future__ import annotations

from preserve.documents.planning import expand
from preserve.documents.workflow import Workflow
from preserve.operations.folder import Folder


def validate(folder: Folder) -> tuple[Workflow, int]:
    """Check preserve.yaml without a lock; give the workflow and its number of jobs.

    Raises:
        DocumentError: all faults.
    """
    workflow = folder.workflow()
    tracked = folder.sources(workflow).tracked
    return workflow, len(expand(workflow, tracked=tracked))
