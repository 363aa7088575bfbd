"""A task that is a program: it prints to its log and writes its output as JSON to the file named by RUNYARD_OUTPUT."""

import json
import os
from pathlib import Path

print("A task's log is what it prints.")
Path(os.environ["RUNYARD_OUTPUT"]).write_text(json.dumps({"word": "Hello"}))
