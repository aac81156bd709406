"""The monitor page: what is in a file of tasks, in a browser.

`answers` turns questions into values for JSON, `flower` gives the same in the form of Flower's API, `server` speaks HTTP, and
`page/` is what the browser gets. All of it reads and nothing writes; it asks what the file commands ask (`browse`), in their
words (`cli.tasks`, `cli.details`). Only the command `litetq monitor` imports this room.
"""
