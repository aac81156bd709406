-- Work that a stop has cut off and given back: it is delivered again, and that counts against nothing.
-- Older workers: may keep running; they do not say of such a task that it is delivered again.

ALTER TABLE litetq_task ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0;  -- times that begun work came back unspent
