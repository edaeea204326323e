"""The judges that ship with zelo; each registers its plugin through the same interface as third parties."""
