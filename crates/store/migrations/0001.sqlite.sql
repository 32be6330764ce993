-- One row per consumer group, cluster, topic and partition: who may write, and where it stands.
CREATE TABLE tollgate_fence (
    source           BLOB NOT NULL PRIMARY KEY CHECK (length(source) = 16),
    group_name       TEXT NOT NULL,
    cluster_id       TEXT NOT NULL,
    topic            TEXT NOT NULL,
    partition        INTEGER NOT NULL,
    epoch            INTEGER NOT NULL,
    next_offset      INTEGER NOT NULL CHECK (next_offset >= 0),
    outbox_position  INTEGER NOT NULL,
    -- The last record applied. Its id is bytes: it came with the record.
    mark_offset      INTEGER,
    mark_timestamp   INTEGER,
    mark_event_id    BLOB,
    CHECK ((mark_offset IS NULL) = (mark_timestamp IS NULL)),
    CHECK ((mark_offset IS NULL) = (mark_event_id IS NULL))
) STRICT, WITHOUT ROWID;

-- What is to be published, in the order of position.
CREATE TABLE tollgate_outbox (
    source    BLOB NOT NULL CHECK (length(source) = 16),
    position  INTEGER NOT NULL,
    topic     TEXT NOT NULL,
    key       BLOB NOT NULL,
    value     BLOB,
    headers   BLOB NOT NULL,
    PRIMARY KEY (source, position)
) STRICT;
