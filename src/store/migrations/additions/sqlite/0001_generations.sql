-- One process holds the store at a time: its generation is checked and its writes are counted in each transaction.
CREATE TABLE lease (
    id INTEGER NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    -- The process that holds the lease; '': none.
    holder TEXT NOT NULL,
    -- Transactions of this generation. Fewer than the holder has committed: the database was restored, or lost some.
    writes INTEGER NOT NULL,
    -- Milliseconds since 1970. Not kept for SQLite, where the holder locks a file.
    ends_at INTEGER NOT NULL
);

INSERT INTO lease (id, generation, holder, writes, ends_at) VALUES (1, 0, '', 0, 0);

-- Each process that has held the store. Positions carry the epoch of the generation that gave them.
CREATE TABLE generations (
    number INTEGER NOT NULL PRIMARY KEY,
    epoch TEXT NOT NULL UNIQUE,
    -- Milliseconds since 1970.
    began_at INTEGER NOT NULL
);

-- The generation that stored the message. 0: a version of Bugle that had none.
ALTER TABLE messages ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- What is written to see whether there is room on the disk, and deleted at once.
CREATE TABLE probes (
    id INTEGER NOT NULL PRIMARY KEY,
    payload BLOB NOT NULL
);
