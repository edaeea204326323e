"""Operation of the serving process: metrics, warm-up, requests in the background."""
