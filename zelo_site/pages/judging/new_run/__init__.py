"""The page that starts a run: its form, what it remembers, the judges as cards, and the views."""
