"""Checks of a request before a view runs: the client's address, the size of the request, headers."""
