"""The admin at /admin/, for superusers: Django's, in django-unfold's looks.

Lists show what the server holds. Nothing that a verb owns can be edited: an action calls the verb, which writes its entry
of the audit log. `site` puts the parts together; `zelo_site.urls` serves it.
"""
