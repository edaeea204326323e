"""Trains, publishes, evaluates and serves rerankers from frozen scores. Imports `scoring` and `labeling`."""
