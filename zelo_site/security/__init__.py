"""What the site checks at its border, before a view runs: the client's address, the size of a request, headers."""
