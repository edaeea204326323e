"""From judgments to strengths, Elo and relevance. Imports `labeling` and nothing above itself."""
