-- One row per consumer group, cluster, topic and partition: who may write, and where it stands.
CREATE TABLE tollgate_fence (
    source           bytea PRIMARY KEY CHECK (octet_length(source) = 16),
    group_name       text NOT NULL,
    cluster_id       text NOT NULL,
    topic            text NOT NULL,
    partition        integer NOT NULL,
    epoch            bigint NOT NULL,
    next_offset      bigint NOT NULL CHECK (next_offset >= 0),
    outbox_position  bigint NOT NULL,
    -- The last record applied. Its id is bytes: it came with the record.
    mark_offset      bigint,
    mark_timestamp   bigint,
    mark_event_id    bytea,
    CHECK ((mark_offset IS NULL) = (mark_timestamp IS NULL)),
    CHECK ((mark_offset IS NULL) = (mark_event_id IS NULL))
    -- Updated with every batch; room on the page keeps the updates in place.
) WITH (fillfactor = 50);

-- What is to be published, in the order of position.
CREATE TABLE tollgate_outbox (
    source    bytea NOT NULL CHECK (octet_length(source) = 16),
    position  bigint NOT NULL,
    topic     text NOT NULL,
    key       bytea NOT NULL,
    value     bytea,
    headers   bytea NOT NULL,
    PRIMARY KEY (source, position)
    -- Rows come and go: vacuum after ten thousand dead ones, however large the table.
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
