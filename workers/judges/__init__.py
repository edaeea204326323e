"""Judges that ship with the product; each file registers its plugins by the door that third parties use."""
