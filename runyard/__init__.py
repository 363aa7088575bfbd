"""The front door: command line, settings, and all parts in one service."""
