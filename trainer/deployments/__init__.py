"""Deployments: stable names that programs call, each with a current version, and the log of their requests."""
