-- Remote control (commands to workers and their answers) and events.
-- Older workers: may keep running; they do not know these tables and answer nobody.

CREATE TABLE litetq_command (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,  -- each worker remembers the last one it has read
    ticket     TEXT,           -- names the answers; NULL: nobody waits for any
    body       TEXT NOT NULL,  -- JSON: method, arguments, destination, pattern, matcher
    expires_at REAL NOT NULL   -- UTC seconds
) STRICT;

CREATE TABLE litetq_reply (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    ticket     TEXT    NOT NULL,
    worker     INTEGER NOT NULL,  -- litetq_worker.id
    node       TEXT    NOT NULL,  -- its name
    body       TEXT    NOT NULL,  -- JSON
    expires_at REAL    NOT NULL   -- UTC seconds
) STRICT;

CREATE INDEX litetq_reply_ticket ON litetq_reply (ticket, n);  -- read by who asked

-- The last events, in the order of their commits; the oldest go when new ones come.
CREATE TABLE litetq_event (
    n        INTEGER PRIMARY KEY AUTOINCREMENT,
    at       REAL    NOT NULL,  -- UTC seconds
    type     TEXT    NOT NULL,  -- task-received, worker-online...
    hostname TEXT    NOT NULL,  -- node that it tells of
    pid      INTEGER NOT NULL,  -- process that wrote it
    body     TEXT    NOT NULL   -- JSON: the fields of its own
) STRICT;

-- What inspect lists as revoked; few rows, so neither costs a claim or a settle anything.
CREATE INDEX litetq_task_revoked   ON litetq_task (id)        WHERE revoked IS NOT NULL;
CREATE INDEX litetq_result_revoked ON litetq_result (done_at) WHERE state = 'REVOKED';
