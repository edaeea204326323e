"""Runs, jobs and the judging queue: the floor that starts work. Only the composition root imports it."""
