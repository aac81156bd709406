"""A window that stays responsive while tasks run in the same program; closed early, it goes on at the next start.

    python window.py

The queue is pack.sqlite in the working directory. Tk itself is touched by one thread only, the one of the window: it looks
ten times a second at what the file knows.
"""

from __future__ import annotations

import tkinter as tk
from pathlib import Path
from tkinter import filedialog, ttk

from jobs import Packing, app

LOOK_EVERY_MS = 100


class Window:
    def __init__(self, root: tk.Tk) -> None:
        self.root = root
        self.packing = Packing()
        self.folder = tk.StringVar()
        self.status = tk.StringVar(value="Type or choose a folder; each file in it gets a packed twin.")
        self._build()
        self.worker = app.run_embedded()  # what was left last time starts now
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.bind("<Escape>", lambda _: self.close())
        self.refresh()

    def _build(self) -> None:
        self.root.title("Pack")
        self.root.geometry("640x360")
        top = ttk.Frame(self.root, padding=8)
        top.pack(fill="x")
        entry = ttk.Entry(top, textvariable=self.folder)
        entry.pack(side="left", fill="x", expand=True)
        entry.bind("<Return>", lambda _: self.add())
        entry.focus_set()
        ttk.Button(top, text="Choose...", command=self.choose).pack(side="left", padx=4)
        ttk.Button(top, text="Pack", command=self.add).pack(side="left")
        ttk.Label(self.root, textvariable=self.status, padding=(8, 2)).pack(side="bottom", fill="x")
        self.bar = ttk.Progressbar(self.root)
        self.bar.pack(side="bottom", fill="x", padx=8)
        self.table = ttk.Treeview(self.root, columns=("file", "state"), show="headings")
        self.table.heading("file", text="File", anchor="w")
        self.table.heading("state", text="State", anchor="w")
        self.table.pack(fill="both", expand=True, padx=8, pady=4)

    def choose(self) -> None:
        self.folder.set(filedialog.askdirectory() or self.folder.get())

    def add(self) -> None:
        try:
            count = self.packing.add(Path(self.folder.get()))
        except OSError as error:
            self.status.set(str(error))
        else:
            self.status.set(f"{count} files to pack.")

    def refresh(self) -> None:
        rows = self.packing.look()
        for path, words, _ in rows:
            if not self.table.exists(path):
                self.table.insert("", "end", path, values=(Path(path).name, ""))
            self.table.set(path, "state", words)
        if rows:
            ended = sum(row.ended for row in rows)
            self.bar.configure(maximum=len(rows), value=ended)
            self.root.title(f"Pack: {ended} of {len(rows)} done")
        self.root.after(LOOK_EVERY_MS, self.refresh)

    def close(self) -> None:
        """Let what has begun finish, with the window alive, and leave the rest in the file."""
        self.status.set("Finishing what has begun; the rest waits for the next start.")
        if self.worker.stop(timeout=0):
            self.root.destroy()
        else:
            self.root.after(LOOK_EVERY_MS, self.close)


if __name__ == "__main__":
    root = tk.Tk()
    Window(root)
    root.mainloop()
