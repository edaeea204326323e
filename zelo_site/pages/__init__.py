"""The pages that join several floors, one module a page; addresses in `zelo_site.urls`."""
