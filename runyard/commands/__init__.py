"""The commands of ``runyard``, one module for each family; :mod:`runyard.cli` imports them when they are called."""
