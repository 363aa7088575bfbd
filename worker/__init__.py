"""The worker: what stands beside user code and executes one attempt. Standard library only."""
