"""Requests and responses of the serving process, apart from what they ask."""
