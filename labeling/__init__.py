"""Queries, documents, candidates, pairs and judgments, and the people who judge: the lowest floor."""
