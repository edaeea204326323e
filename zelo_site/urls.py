"""Every address of the site; each package brings its own."""

urlpatterns: list = []
