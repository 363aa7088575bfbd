"""The webserver: the public HTTP API and its documentation page."""
