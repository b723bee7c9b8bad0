"""Planted fault: the order of a set of texts hangs on Python's hash seed."""

import json
import sys
from pathlib import Path

cuts = {"trigger", "two muons", "opposite charge", "isolation", "mass window", "vertex"}
Path(sys.argv[1]).write_text(json.dumps({"cuts": list(cuts)}))
