"""Tests of the pure numerics; none needs a database."""
