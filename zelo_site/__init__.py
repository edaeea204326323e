"""The project package: settings, URLs, services, and the pages that combine several apps."""
