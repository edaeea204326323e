"""What the person on call needs of the serving process: metrics, warm-up, requests in the background."""
