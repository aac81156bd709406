-- The first schema.
-- Older workers: there are none.

CREATE TABLE litetq_meta (
    key   TEXT PRIMARY KEY,  -- 'schema': version of this schema; 'app': JSON of the app that the file names; 'file_id': random
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Numbers that must never come again, also after a rollback of a claim's effects by rescue.
CREATE TABLE litetq_counter (
    name  TEXT PRIMARY KEY,  -- 'claim'
    value INTEGER NOT NULL   -- the last one drawn
) STRICT, WITHOUT ROWID;

INSERT INTO litetq_counter (name, value) VALUES ('claim', 0);

-- A lane is a queue, or the part of a queue that shares a limit key. Lanes are never deleted, so ids may be remembered.
CREATE TABLE litetq_lane (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    queue       TEXT    NOT NULL,
    key         TEXT    NOT NULL DEFAULT '',  -- limit or concurrency key; '' is the queue's own lane
    open_at     REAL    NOT NULL DEFAULT 0,   -- UTC seconds: closed until then (rate limit)
    interval    REAL,                         -- seconds between two starts (rate limit); NULL: no limit
    max_running INTEGER,                      -- claimed at once; NULL: no limit (what runs is counted, never stored)
    paused      INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT litetq_lane_once UNIQUE (queue, key),
    CONSTRAINT litetq_lane_paused CHECK (paused IN (0, 1))
) STRICT;

-- Unfinished tasks only: finished ones move to litetq_result, so history never slows a claim.
CREATE TABLE litetq_task (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,  -- commit order: first in, first out goes by this, never by id or clock
    id           TEXT    NOT NULL,                   -- the caller may send one id twice: not unique, as in Celery
    name         TEXT    NOT NULL,
    state        INTEGER NOT NULL,                   -- states.Row
    lane         INTEGER NOT NULL,                   -- litetq_lane.id
    priority     INTEGER NOT NULL,                   -- 0..255, higher first
    body         BLOB    NOT NULL,                   -- encoded [args, kwargs]
    content_type TEXT,                               -- NULL: application/json
    retries      INTEGER NOT NULL,                   -- Celery's counter
    attempts     INTEGER NOT NULL,                   -- times begun
    deliveries   INTEGER NOT NULL,                   -- redeliveries of begun work; bounded
    due_at       REAL,                               -- UTC seconds; NULL: at once
    expires_at   REAL,                               -- UTC seconds; NULL: never
    delay        REAL,                               -- BLOCKED rows: seconds from release to due_at (countdown)
    lifetime     REAL,                               -- BLOCKED rows: seconds from release to expires_at
    root_id      TEXT,                               -- NULL: the task itself
    parent_id    TEXT,
    headers      TEXT,                               -- JSON of the less common headers; NULL: none
    role         INTEGER NOT NULL DEFAULT 0,         -- message.Role
    linked       INTEGER NOT NULL DEFAULT 0,         -- 1: links, a join or parts hang on this task; its end has more to do
    blockers     INTEGER NOT NULL DEFAULT 0,         -- BLOCKED rows: how many links and joins they still wait for
    input        BLOB,                               -- encoded value of the predecessor, or the failure for an errback
    input_type   TEXT,                               -- content type of input; NULL: application/json
    join_id      INTEGER,                            -- this task is the body of that join, whose parts are its input
    claim        INTEGER,                            -- claim number; NULL: nobody holds it
    worker       INTEGER,                            -- litetq_worker.id of the holder
    status       TEXT,                               -- Celery state set while it runs or waits (STARTED, RETRY, PROGRESS...)
    meta         BLOB,                               -- encoded value that goes with status
    meta_type    TEXT,
    traceback    TEXT,                               -- of the last retry
    enqueued_at  REAL    NOT NULL,                   -- UTC seconds
    started_at   REAL,                               -- UTC seconds, with track_started
    revoked      TEXT,                               -- a reason: end as REVOKED instead of a further attempt
    CONSTRAINT litetq_task_state CHECK (state IN (0, 1, 2, 3)),
    CONSTRAINT litetq_task_claimed CHECK ((state = 3) = (claim IS NOT NULL) AND (claim IS NULL) = (worker IS NULL)),
    CONSTRAINT litetq_task_scheduled CHECK (state <> 1 OR due_at IS NOT NULL),
    CONSTRAINT litetq_task_blocked CHECK ((state = 2) = (blockers > 0)),
    CONSTRAINT litetq_task_priority CHECK (priority BETWEEN 0 AND 255)
) STRICT;

CREATE INDEX litetq_task_id       ON litetq_task (id);                                             -- read, revoke
CREATE INDEX litetq_task_ready    ON litetq_task (lane, priority DESC, seq) WHERE state = 0;       -- claim
CREATE INDEX litetq_task_due      ON litetq_task (due_at)     WHERE state = 1;                     -- promote
CREATE INDEX litetq_task_claimed  ON litetq_task (lane, worker) WHERE state = 3;                   -- rescue, max_running
CREATE INDEX litetq_task_expires  ON litetq_task (expires_at) WHERE expires_at IS NOT NULL;     -- expire

-- Who waits for whom. One row per pair; the waiting task is BLOCKED.
CREATE TABLE litetq_link (
    source INTEGER NOT NULL,  -- litetq_task.seq of the task that must end first
    target INTEGER NOT NULL,  -- litetq_task.seq of the task that waits
    kind   INTEGER NOT NULL,  -- message.Kind
    CONSTRAINT litetq_link_once PRIMARY KEY (source, target, kind),
    CONSTRAINT litetq_link_kind CHECK (kind IN (1, 2, 3))
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_link_target ON litetq_link (target);  -- to drop an errback when nobody can fail any more

-- A chord, or a nested group inside one.
CREATE TABLE litetq_join (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    size        INTEGER NOT NULL,
    remaining   INTEGER NOT NULL,  -- members that have not ended in success
    body        INTEGER,           -- litetq_task.seq; NULL: hands its values to the outer join
    immutable   INTEGER NOT NULL DEFAULT 0,
    outer_join  INTEGER,
    outer_place INTEGER,
    CONSTRAINT litetq_join_remaining CHECK (remaining BETWEEN 0 AND size),
    CONSTRAINT litetq_join_end CHECK (body IS NULL OR outer_join IS NULL)
) STRICT;

CREATE INDEX litetq_join_outer ON litetq_join (outer_join) WHERE outer_join IS NOT NULL;  -- to drop a join with those in it

-- Places of a join: first who will fill it, then the value. Kept until the body is final, whatever result expiry says.
CREATE TABLE litetq_part (
    join_id    INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    member     INTEGER,  -- litetq_task.seq; NULL: a nested join fills it, or it is filled
    filled     INTEGER NOT NULL DEFAULT 0,
    value      BLOB,     -- encoded; NULL where filled: null
    value_type TEXT,     -- content type; NULL: application/json
    CONSTRAINT litetq_part_once PRIMARY KEY (join_id, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_part_member ON litetq_part (member) WHERE member IS NOT NULL;  -- settle of a member

-- Finished tasks, one row per id; the newest claim wins.
CREATE TABLE litetq_result (
    id           TEXT PRIMARY KEY,
    state        TEXT    NOT NULL,  -- Celery's name
    result       BLOB,              -- encoded value or exception; NULL: none kept
    content_type TEXT,              -- of result; NULL: application/json
    traceback    TEXT,
    children     TEXT,              -- JSON
    done_at      REAL    NOT NULL,  -- UTC seconds
    expires_at   REAL,              -- UTC seconds; NULL: never
    name         TEXT,
    lane         INTEGER,           -- litetq_lane.id; NULL: written by id alone
    worker       TEXT,              -- node name of the worker that ended it; NULL: ended without running
    retries      INTEGER NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    claim        INTEGER,           -- claim number under which it ended; NULL: never claimed
    priority     INTEGER NOT NULL DEFAULT 0,
    root_id      TEXT,
    parent_id    TEXT,
    headers      TEXT,
    body         BLOB,              -- arguments: kept whole for failures (they can be run again), else while small
    body_type    TEXT,
    enqueued_at  REAL,
    started_at   REAL,
    runtime      REAL,              -- seconds
    reason       TEXT,              -- plain words where the state alone does not say it (lost worker, expired, dead letter)
    dead         INTEGER NOT NULL DEFAULT 0  -- 1: a dead letter, redelivered too often
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_result_expires ON litetq_result (expires_at) WHERE expires_at IS NOT NULL;  -- prune

-- Attempts that ended without ending the task (retry, redelivery); a task that succeeds at once leaves none.
CREATE TABLE litetq_attempt (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    claim      INTEGER NOT NULL,
    worker     TEXT,
    outcome    TEXT    NOT NULL,  -- RETRY, LOST, REQUEUED
    error      BLOB,
    error_type TEXT,
    traceback  TEXT,
    ended_at   REAL    NOT NULL,
    expires_at REAL
) STRICT;

CREATE INDEX litetq_attempt_id      ON litetq_attempt (id);
CREATE INDEX litetq_attempt_expires ON litetq_attempt (expires_at) WHERE expires_at IS NOT NULL;  -- prune

-- Ids revoked before the file knew them.
CREATE TABLE litetq_revoked (
    id         TEXT PRIMARY KEY,
    reason     TEXT NOT NULL,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX litetq_revoked_expires ON litetq_revoked (expires_at);  -- prune

-- Workers, alive or not yet rescued. An id is an identity: one declared dead is never used again.
CREATE TABLE litetq_worker (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,            -- node name, celery@host
    run        TEXT    NOT NULL,            -- name of its run file and prefix of its children's
    boot       TEXT    NOT NULL,            -- boot of the machine; of another boot, all it held counts as begun
    pid        INTEGER NOT NULL,            -- for display and terminate only
    queues     TEXT,                        -- JSON list; NULL: all
    late       TEXT    NOT NULL DEFAULT '[]',  -- JSON list of task names that it acknowledges late
    info       TEXT,                        -- JSON: pool, concurrency, version
    started_at REAL    NOT NULL,
    beats      INTEGER NOT NULL DEFAULT 0,  -- heartbeat counter: observers watch it change on their own clock
    CONSTRAINT litetq_worker_run UNIQUE (run)
) STRICT;

-- What must reach another result backend: written with the settle, relayed afterwards, newest claim wins there.
CREATE TABLE litetq_outbox (
    n      INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL,  -- address of the backend
    id     TEXT NOT NULL,
    claim  INTEGER
) STRICT;
