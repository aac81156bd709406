-- Periodic tasks: the entries of the schedule, and each due time that something was done about.
-- Older workers: may keep running; they do not know these tables.

CREATE TABLE litetq_entry (
    name           TEXT PRIMARY KEY,
    owner          TEXT    NOT NULL,             -- '': made at run time; else the app whose configuration holds it
    version        INTEGER NOT NULL DEFAULT 1,   -- grows with each change: who has read an older one changes nothing
    definition     TEXT    NOT NULL,             -- JSON: task, args, kwargs, options; of an owned entry a description only
    schedule       TEXT,                         -- JSON (schedules.to_text); NULL: only its program knows it
    words          TEXT    NOT NULL,             -- the schedule, for people
    zone           TEXT    NOT NULL,             -- time zone in which due_at was computed
    policy         TEXT,                         -- JSON (schedules.Policy); NULL: all defaults
    paused         INTEGER NOT NULL DEFAULT 0,
    created_at     REAL    NOT NULL,             -- UTC seconds
    due_at         REAL,                         -- UTC seconds: the first due time that nothing was done about; NULL: none comes
    next_at        REAL,                         -- UTC seconds: when beat looks at it: due_at with its jitter, or another try
    waiting_due_at REAL,                         -- overlap queue_one: the due time that waits for the end of the run before it
    last_due_at    REAL,                         -- UTC seconds: the latest due time that something was done about
    last_run_at    REAL,                         -- UTC seconds: when a task was last enqueued
    last_id        TEXT,                         -- the result of that run
    last_ends      TEXT,                         -- JSON: ids of the tasks that end that run; NULL: last_id alone
    runs           INTEGER NOT NULL DEFAULT 0,   -- tasks enqueued
    note           TEXT,                         -- plain words: why it did not run, the last time that it did not
    CONSTRAINT litetq_entry_paused CHECK (paused IN (0, 1)),
    CONSTRAINT litetq_entry_next CHECK ((due_at IS NULL) = (next_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_entry_next    ON litetq_entry (next_at) WHERE paused = 0 AND next_at IS NOT NULL;       -- look
CREATE INDEX litetq_entry_waiting ON litetq_entry (name)    WHERE waiting_due_at IS NOT NULL;               -- look

-- One row per entry and due time: what makes any number of beats enqueue it once.
CREATE TABLE litetq_firing (
    entry   TEXT    NOT NULL,  -- litetq_entry.name; rows stay for a day, also without it
    due_at  REAL    NOT NULL,  -- UTC seconds
    outcome TEXT    NOT NULL,  -- SENT, SKIPPED, WAITING (overlap queue_one), FAILED
    task_id TEXT,
    at      REAL    NOT NULL,  -- UTC seconds: when it was decided
    reason  TEXT,              -- plain words, where it was not enqueued
    missed  INTEGER NOT NULL DEFAULT 0,  -- due times before this one that were left out
    CONSTRAINT litetq_firing_once PRIMARY KEY (entry, due_at),
    CONSTRAINT litetq_firing_outcome CHECK (outcome IN ('SENT', 'SKIPPED', 'WAITING', 'FAILED')),
    CONSTRAINT litetq_firing_sent CHECK ((outcome = 'SENT') = (task_id IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_firing_at ON litetq_firing (at);  -- prune
