-- What it takes to run a failed workflow again: its failed tasks and what hung on them, as long as their results are kept.
-- Older workers: may keep running; what fails under them leaves nothing here.

-- The part of a failed task that its result does not hold; and errbacks, as they were before they were called or dropped.
CREATE TABLE litetq_past_task (
    seq          INTEGER NOT NULL,  -- litetq_task.seq, as long as it was there
    ended        INTEGER NOT NULL,  -- 1: it failed; 0: an errback, or what waits behind one, to be made anew
    id           TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    lane         INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    body         BLOB,              -- NULL: it lies in the result
    content_type TEXT,
    due_at       REAL,              -- UTC seconds
    expires_at   REAL,              -- UTC seconds: of the task, as it was sent
    delay        REAL,
    lifetime     REAL,
    root_id      TEXT,
    parent_id    TEXT,
    headers      TEXT,
    role         INTEGER NOT NULL,
    linked       INTEGER NOT NULL,
    input        BLOB,
    input_type   TEXT,
    join_id      INTEGER,           -- this task is the body of that join
    kept_until   REAL,              -- UTC seconds; NULL: for ever
    CONSTRAINT litetq_past_task_once PRIMARY KEY (seq, ended),
    CONSTRAINT litetq_past_task_ended CHECK (ended IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_past_task_id   ON litetq_past_task (id);                                           -- retry, forget
CREATE INDEX litetq_past_task_kept ON litetq_past_task (kept_until) WHERE kept_until IS NOT NULL;      -- prune

-- As litetq_link, litetq_join and litetq_part. A source or member may be alive: when it succeeds, that is noted here, too.
CREATE TABLE litetq_past_link (
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,  -- always one that litetq_past_task holds, or that will come there
    kind   INTEGER NOT NULL,
    ended  INTEGER NOT NULL,  -- as of the task that it was kept with
    CONSTRAINT litetq_past_link_once PRIMARY KEY (source, target, kind, ended)
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_past_link_target ON litetq_past_link (target);

CREATE TABLE litetq_past_join (
    id          INTEGER PRIMARY KEY,
    body        INTEGER,
    immutable   INTEGER NOT NULL,
    outer_join  INTEGER,
    outer_place INTEGER
) STRICT;

CREATE INDEX litetq_past_join_outer ON litetq_past_join (outer_join) WHERE outer_join IS NOT NULL;

CREATE TABLE litetq_past_part (
    join_id    INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    member     INTEGER,
    filled     INTEGER NOT NULL,
    value      BLOB,
    value_type TEXT,
    CONSTRAINT litetq_past_part_once PRIMARY KEY (join_id, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_past_part_member ON litetq_past_part (member) WHERE member IS NOT NULL;
