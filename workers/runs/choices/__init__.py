"""What a new run may ask for: its queries, a ready-made order, the judges' weights, the order of the last run."""
