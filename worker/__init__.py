"""The worker: what stands beside user code and executes one attempt. Standard library only."""

from typing import Final

#: The release this code belongs to, said in the hello of an agent; a test compares it with the distribution's.
VERSION: Final = "0.1.0"
