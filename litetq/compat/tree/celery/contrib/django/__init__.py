"""Tasks of a Django project."""
