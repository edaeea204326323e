"""Computes strengths, Elo and relevance from judgments. Imports only `labeling`, no higher layer."""
