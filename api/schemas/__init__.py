"""The public contract of the API, one twin for each router."""
