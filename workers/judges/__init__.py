"""Judges that ship with the product; each registers its plugins through the same entry points as third parties."""
