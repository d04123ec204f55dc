-- Types and statements are those that SQLite and PostgreSQL read alike: BYTEA holds blobs
-- in SQLite too. The database must sort text by bytes (in PostgreSQL: LC_COLLATE 'C').

CREATE TABLE store_row (
    kind    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    body    BYTEA  NOT NULL,
    seal    BYTEA  NOT NULL,
    PRIMARY KEY (kind, id)
);

-- One row: who may write. It is kept when the lease is released, so that terms only grow.
CREATE TABLE writer_lease (
    slot    BIGINT PRIMARY KEY CHECK (slot = 1),
    owner   TEXT   NOT NULL,
    term    BIGINT NOT NULL CHECK (term > 0),
    expires BIGINT NOT NULL -- milliseconds since 1970; 0 if released
);
