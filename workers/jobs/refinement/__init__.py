"""Refinement of a student: mined pairs become questions, the scores are refitted, and training continues."""
