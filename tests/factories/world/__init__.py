"""One project with a row for every page and endpoint, and changes to it before a request."""
