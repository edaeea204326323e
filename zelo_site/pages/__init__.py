"""Pages that combine several apps, one module per page; see `zelo_site.urls` for their URLs."""
