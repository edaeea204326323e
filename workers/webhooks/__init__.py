"""Webhooks: signed messages to addresses of owners when a run, training or evaluation has ended."""
