"""The modules that the alias answers with, each in the file that its name says: `celery.app.trace` is `celery/app/trace.py`.

They are loaded under Celery's names only, from this folder as an entry of a path of their own (`litetq.compat.alias`). Most
either mirror a room of litetq or list its objects; few have code, where Celery's name has no counterpart below.
"""
