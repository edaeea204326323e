"""Tests of zelo; the folders mirror the packages."""
