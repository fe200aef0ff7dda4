-- Access: keys of the API, the audit log, and quotas of namespaces.

-- A key of the API. Of the secret, only its SHA-256 is here: it has 190 random bits, so nobody can
-- find it from the digest. A row stays when its key is revoked, for the audit log names it.
CREATE TABLE api_key (
    id TEXT PRIMARY KEY NOT NULL CHECK (length(id) = 12),
    digest TEXT NOT NULL CHECK (length(digest) = 64),
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'deployer', 'admin')),
    -- Names with commas between them; NULL stands for all namespaces.
    namespaces TEXT,
    -- Set if the key may see inputs, outputs, logs and entries of stores.
    payloads BIGINT NOT NULL CHECK (payloads IN (0, 1)),
    label TEXT NOT NULL,
    -- The rate at which a host takes requests with the key; NULL stands for the host's default.
    requests_per_second BIGINT CHECK (requests_per_second > 0),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    -- Not of each request: a host writes it every few seconds.
    used_at BIGINT,
    revoked_at BIGINT
) WITHOUT ROWID;

-- The audit log: a row per change that a caller made. Starts of runs are not here: each is in
-- run.started_by. No row has a payload, only digests of what was there before and after.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL,
    -- The key of the caller; NULL for a host, and for a caller without a key on a host that asks
    -- for none.
    key TEXT,
    address TEXT,
    action TEXT NOT NULL,
    -- NULL for a change that belongs to no namespace.
    namespace TEXT,
    object TEXT NOT NULL,
    before TEXT,
    after TEXT
);
-- Finds the rows that are older than the retention.
CREATE INDEX audit_at ON audit (at);

-- {quota: value, ..}
ALTER TABLE namespace ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';
