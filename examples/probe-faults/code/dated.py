"""Planted fault: the product says when it was made."""

import json
import sys
import time
from pathlib import Path

made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
Path(sys.argv[1]).write_text(json.dumps({"mass": 91.19, "made": made}))
