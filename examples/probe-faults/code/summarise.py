"""Put all into one file."""

import json
import sys
from pathlib import Path

found = {path.stem: json.loads(path.read_text()) for path in sorted(Path("made").iterdir())}
Path(sys.argv[1]).write_text(json.dumps(found, indent=1, sort_keys=True))
