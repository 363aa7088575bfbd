"""Remove the run's big file, however the run went."""

import shutil
import sys

from place import folder

shutil.rmtree(folder(sys.argv[1]), ignore_errors=True)
print("tidied up")
