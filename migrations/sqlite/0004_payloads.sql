-- What holds texts of any length is no longer WITHOUT ROWID: such a table has
-- its rows in the inner nodes of its tree, and a search reads every row that it
-- compares with, megabytes and all. With rowids it reads keys alone.

CREATE TABLE output_by_rowid (
    state BIGINT NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 0),
    body TEXT NOT NULL,
    PRIMARY KEY (state, number)
);
INSERT INTO output_by_rowid SELECT state, number, body FROM output;
DROP TABLE output;
ALTER TABLE output_by_rowid RENAME TO output;

CREATE TABLE attempt_by_rowid (
    state BIGINT NOT NULL,
    number BIGINT NOT NULL CHECK (number > 0),
    ended_at BIGINT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('SUCCESS', 'PRUNED', 'REQUEUED', 'FAILED')),
    kind TEXT,
    message TEXT,
    details TEXT,
    logs TEXT,
    cpu_us BIGINT,
    memory_bytes BIGINT,
    host_calls BIGINT,
    output_bytes BIGINT,
    input_bytes BIGINT,
    CHECK ((outcome = 'FAILED') = (kind IS NOT NULL)),
    PRIMARY KEY (state, number)
);
INSERT INTO attempt_by_rowid
    SELECT state, number, ended_at, outcome, kind, message, details, logs,
           cpu_us, memory_bytes, host_calls, output_bytes, input_bytes
    FROM attempt;
DROP TABLE attempt;
ALTER TABLE attempt_by_rowid RENAME TO attempt;

CREATE TABLE entry_by_rowid (
    run BIGINT NOT NULL,
    key TEXT NOT NULL CHECK (key <> ''),
    value TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (run, key)
);
INSERT INTO entry_by_rowid SELECT run, key, value, version FROM entry;
DROP TABLE entry;
ALTER TABLE entry_by_rowid RENAME TO entry;
