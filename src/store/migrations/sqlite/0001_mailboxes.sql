CREATE TABLE store (
    id INTEGER NOT NULL PRIMARY KEY,
    -- Whose numbers positions are: a database that was made anew continues no sequence.
    epoch TEXT NOT NULL
);

CREATE TABLE mailboxes (
    room TEXT NOT NULL PRIMARY KEY,
    -- The last position that was given.
    last INTEGER NOT NULL,
    -- Up to here messages were trimmed by age or count: what went through there cannot be told whole any more.
    trimmed INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE messages (
    room TEXT NOT NULL,
    position INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    event TEXT NOT NULL,
    -- json, binary, none
    kind TEXT NOT NULL,
    -- User ids, as a JSON list.
    except_users TEXT NOT NULL,
    -- Milliseconds since 1970.
    stored_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Last: whoever filters need not read over it.
    payload BLOB NOT NULL,
    PRIMARY KEY (room, position)
);

CREATE INDEX messages_by_id ON messages (room, message_id);
CREATE INDEX messages_by_end ON messages (expires_at);
CREATE INDEX messages_by_age ON messages (stored_at);

-- Emits that must not be repeated.
CREATE TABLE emits (
    caller TEXT NOT NULL,
    room TEXT NOT NULL,
    key BLOB NOT NULL,
    asked BLOB NOT NULL,
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (caller, room, key)
);

CREATE INDEX emits_by_end ON emits (expires_at);

-- Up to which position a user has read a mailbox.
CREATE TABLE read_marks (
    room TEXT NOT NULL,
    user_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (room, user_id)
);

-- Messages after that mark that were read by themselves.
CREATE TABLE read_messages (
    room TEXT NOT NULL,
    user_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (room, user_id, position)
);

-- Up to which position the messages of a user's own mailbox were given to a device of theirs.
CREATE TABLE delivered_marks (
    user_id TEXT NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
);

-- Messages up to that mark that were given to no device.
CREATE TABLE passed_over (
    user_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (user_id, position)
);
