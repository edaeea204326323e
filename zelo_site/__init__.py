"""Composition root: settings, URLs, services and the pages that join several floors."""
