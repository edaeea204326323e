"""Queries, documents, candidates, pairs, judgments and annotators: the lowest layer."""
