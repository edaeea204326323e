"""Teaching of judges: worked examples from people's answers, measured on held-out queries."""
