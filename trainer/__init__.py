"""From frozen scores to a proven reranker. Imports `scoring` and `labeling`."""
