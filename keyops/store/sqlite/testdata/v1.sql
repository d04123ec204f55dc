-- A store of schema 1, as written by the first release.
PRAGMA application_id = 1262899801;

CREATE TABLE schema_migration (version BIGINT PRIMARY KEY, applied TEXT NOT NULL);
INSERT INTO schema_migration VALUES (1, '2026-11-21T21:00:00Z');

CREATE TABLE store_row (
    kind    TEXT   NOT NULL,
    id      TEXT   NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    body    BYTEA  NOT NULL,
    seal    BYTEA  NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE writer_lease (
    slot    BIGINT PRIMARY KEY CHECK (slot = 1),
    owner   TEXT   NOT NULL,
    term    BIGINT NOT NULL CHECK (term > 0),
    expires BIGINT NOT NULL -- milliseconds since 1970; 0 if released
);

INSERT INTO writer_lease VALUES (1, 'keyferryd at host-1', 7, 1795300010000);
INSERT INTO store_row VALUES ('meta', 'store', 1, X'000000080000000000000001000000106b66692d3031323334353637383961620000002438663134653435662d636565612d346537612d396334622d3365316432663561366237630000000818ea2fd68d424000000000080000000000000000', X'');
INSERT INTO store_row VALUES ('key', 'mrk-1', 3, X'0001ff', X'abcd');
INSERT INTO store_row VALUES ('key', 'plain', 1, X'', X'');
