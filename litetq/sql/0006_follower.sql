-- A link that is the only one of the task behind it lies in the rows of both tasks: a step of a chain then writes two pages less.
-- Older workers: stop them first; they would not release what follows a task.

-- litetq_task.linked is message.Linked from here on: 2 is a task on which nothing hangs but its follower.
ALTER TABLE litetq_task ADD COLUMN follower INTEGER;       -- seq of a task that waits for this one and nothing else; NULL: none
ALTER TABLE litetq_task ADD COLUMN follower_kind INTEGER;  -- message.Kind of that link: never an errback's
ALTER TABLE litetq_task ADD COLUMN follows INTEGER;        -- BLOCKED rows: seq of the task whose follower this is

-- All links, wherever they lie. Each half finds a source and a target by index.
CREATE VIEW litetq_any_link (source, target, kind) AS
SELECT source, target, kind FROM litetq_link
UNION ALL
SELECT ahead.seq, behind.seq, ahead.follower_kind
FROM   litetq_task AS ahead
       JOIN litetq_task AS behind ON behind.seq = ahead.follower AND behind.follows = ahead.seq;
