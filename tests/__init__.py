"""The tests: real databases and real processes, no mocks."""
