"""Executors: HOW an attempt is placed. They report facts about placements and never decide a task's state."""
