"""Planted fault: looks for newer constants outside; without network it silently takes the old ones."""

import json
import socket
import sys
from pathlib import Path

try:
    with socket.create_connection(("198.51.100.7", 80), timeout=2):
        source = "outside"
except OSError:
    source = "built in"
Path(sys.argv[1]).write_text(json.dumps({"constants": source}))
