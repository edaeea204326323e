"""For the person on call: health, readiness, metrics, backup and restore."""
