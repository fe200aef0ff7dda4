-- The street of a state, and what it rests on. Times are milliseconds since
-- 1970 (UTC), JSON is text, names of statuses are those of the model.

-- One start of one host. What it holds is lost when it is gone.
CREATE TABLE session (
    id BIGINT PRIMARY KEY NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT
);

-- An upload of a plugin. The same bytes may be uploaded under several names.
CREATE TABLE plugin (
    id INTEGER PRIMARY KEY NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES component (digest),
    uploaded_at BIGINT NOT NULL,
    UNIQUE (namespace, name, digest)
);

-- The bytes of a plugin and what it said of itself, once for each digest.
CREATE TABLE component (
    digest TEXT PRIMARY KEY NOT NULL CHECK (length(digest) = 64),
    bytes BLOB NOT NULL,
    size BIGINT NOT NULL,
    nodes TEXT NOT NULL,
    imports TEXT NOT NULL,
    compile_ms BIGINT NOT NULL
);

CREATE TABLE graph (
    id INTEGER PRIMARY KEY NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    current BIGINT NOT NULL,
    UNIQUE (namespace, name)
);

-- Immutable. A run keeps the revision that it began with.
CREATE TABLE revision (
    id INTEGER PRIMARY KEY NOT NULL,
    graph BIGINT NOT NULL REFERENCES graph (id),
    number BIGINT NOT NULL CHECK (number > 0),
    digest TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (graph, number)
);

-- Encrypted by the host's key. Never part of a revision.
CREATE TABLE secret (
    namespace TEXT NOT NULL,
    graph TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (namespace, graph, name)
) WITHOUT ROWID;

CREATE TABLE run (
    id INTEGER PRIMARY KEY NOT NULL,
    uuid TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    graph BIGINT NOT NULL REFERENCES graph (id),
    revision BIGINT NOT NULL REFERENCES revision (id),
    status TEXT NOT NULL CHECK (status IN ('RUNNING', 'SUCCESS', 'FAILED', 'CANCELLED')),
    -- Grows with every batch that touches the run: the number of its latest event.
    version BIGINT NOT NULL,
    inputs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- The counts of the outermost scope.
    open BIGINT NOT NULL CHECK (open >= 0),
    failed BIGINT NOT NULL CHECK (failed >= 0),
    -- For people: what its states came to, and how often one was tried again.
    states BIGINT NOT NULL,
    succeeded BIGINT NOT NULL CHECK (succeeded >= 0),
    pruned BIGINT NOT NULL CHECK (pruned >= 0),
    errored BIGINT NOT NULL CHECK (errored >= 0),
    cancelled BIGINT NOT NULL CHECK (cancelled >= 0),
    retries BIGINT NOT NULL,
    requeues BIGINT NOT NULL,
    -- What the store holds, so that its limits need no scan, and the number of
    -- the last write in it.
    store_keys BIGINT NOT NULL CHECK (store_keys >= 0),
    store_bytes BIGINT NOT NULL CHECK (store_bytes >= 0),
    store_version BIGINT NOT NULL,
    -- Invariant 4: a run with nothing open is over, and one that is over has
    -- nothing open. A cancelled one is swept bit by bit.
    CHECK (status = 'CANCELLED' OR (status = 'RUNNING') = (open > 0)),
    CHECK (status <> 'SUCCESS' OR failed = 0),
    CHECK (status <> 'FAILED' OR failed > 0),
    CHECK ((status = 'RUNNING') = (ended_at IS NULL))
);
CREATE INDEX run_list ON run (namespace, id);
-- Cancelled runs whose states are still to be swept.
CREATE INDEX run_sweep ON run (id) WHERE status = 'CANCELLED' AND open > 0;

CREATE TABLE state (
    id INTEGER PRIMARY KEY NOT NULL,
    run BIGINT NOT NULL,
    node BIGINT NOT NULL,
    path TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('WAITING', 'CREATED', 'QUEUED', 'SUCCESS', 'PRUNED', 'ERRORED', 'CANCELLED')),
    due_at BIGINT NOT NULL,
    session BIGINT,
    fence BIGINT NOT NULL CHECK (fence >= 0),
    attempt BIGINT NOT NULL CHECK (attempt >= 0),
    retries BIGINT NOT NULL,
    requeues BIGINT NOT NULL,
    losses BIGINT NOT NULL,
    conflicts BIGINT NOT NULL,
    -- [[node, state, output], ..]: the outputs that it comes from.
    refs TEXT NOT NULL,
    -- [[unite, state], ..]: the unites around it.
    scopes TEXT NOT NULL,
    -- Values of the store that its inputs name, fixed when it was created.
    fixed TEXT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    outputs BIGINT,
    -- Why it failed for good, and what a pruned branch left for people.
    kind TEXT,
    message TEXT,
    details TEXT,
    -- What the last attempt used.
    cpu_us BIGINT,
    memory_bytes BIGINT,
    host_calls BIGINT,
    output_bytes BIGINT,
    -- A claimed state has an owner, and nothing else has.
    CHECK ((status = 'QUEUED') = (session IS NOT NULL)),
    CHECK (status <> 'QUEUED' OR fence > 0),
    CHECK ((status IN ('SUCCESS', 'PRUNED', 'ERRORED', 'CANCELLED')) = (ended_at IS NOT NULL)),
    CHECK ((status = 'SUCCESS') = (outputs IS NOT NULL)),
    CHECK ((status = 'ERRORED') = (kind IS NOT NULL))
);
-- Invariants 1 and 2: no child and no unite is created twice. Also the order
-- of branches, which gathers read.
CREATE UNIQUE INDEX state_path ON state (run, path);
-- What can be claimed, in the order in which it is due.
CREATE INDEX state_due ON state (due_at, id) WHERE status = 'CREATED';
-- What a session holds.
CREATE INDEX state_held ON state (session) WHERE status = 'QUEUED';

-- The counts of a unite: invariant 5.
CREATE TABLE unite (
    state INTEGER PRIMARY KEY NOT NULL,
    -- The execution that it unites, and how many outputs that had.
    source BIGINT NOT NULL,
    branches BIGINT NOT NULL CHECK (branches >= 0),
    open BIGINT NOT NULL CHECK (open >= 0),
    failed BIGINT NOT NULL CHECK (failed >= 0),
    arrived BIGINT NOT NULL CHECK (arrived >= 0)
);

CREATE TABLE output (
    state BIGINT NOT NULL,
    number BIGINT NOT NULL CHECK (number >= 0),
    body TEXT NOT NULL,
    PRIMARY KEY (state, number)
) WITHOUT ROWID;

-- Attempts, but for a first one that ended well and said nothing: of that the
-- state knows all.
CREATE TABLE attempt (
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
    CHECK ((outcome = 'FAILED') = (kind IS NOT NULL)),
    PRIMARY KEY (state, number)
) WITHOUT ROWID;

-- The store of a run. The version tells a later write that a value it read
-- has changed.
CREATE TABLE entry (
    run BIGINT NOT NULL,
    key TEXT NOT NULL CHECK (key <> ''),
    value TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
