//! Blocks of numbers, sessions, and the connection of a session to the other hosts.

use crate::dialect::Statement;

/// The hosts with their newest sessions, the last column by a text.
macro_rules! newest_sessions {
    ($alive:expr) => {
        concat!(
            "SELECT h.id, h.name, h.version, h.first_seen_at, s.started_at, s.ended_at, ",
            $alive,
            " FROM host h \
             JOIN session s ON s.id = (SELECT MAX(l.id) FROM session l WHERE l.host = h.folder) \
             ORDER BY h.id LIMIT $1"
        )
    };
}

statements! {
    TAKE_NUMBERS = "UPDATE number SET next = next + $2 WHERE name = $1 RETURNING next";
    HOST_NUMBER = "SELECT id FROM host WHERE folder = $1";
    /// Names a host. Of two sessions of one folder that begin at once, the first names it.
    NAME_HOST =
        "INSERT INTO host (id, folder, name, version, first_seen_at) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (folder) DO UPDATE SET name = excluded.name, version = excluded.version";
    /// Lists the hosts, each with its newest session, and whether that is alive. On SQLite there is
    /// one host, and no host sends a heartbeat.
    HOSTS = newest_sessions!("s.ended_at IS NULL"),
    postgres newest_sessions!(concat!(
        "CASE WHEN s.ended_at IS NULL AND s.expires_at >= (", now!(), ") THEN 1::BIGINT ELSE 0 END"
    ));
    BEGIN_SESSION =
        "INSERT INTO session (id, started_at, expires_at, host) \
         VALUES ($1, $2, $3, $4)";
    /// Changes nothing, but writes: proves that the database is writable.
    TOUCH_SESSION = "UPDATE session SET started_at = started_at WHERE id = $1";
    /// The time of the latest commits, for a host whose clock has gone back. Each part reads the
    /// last rows of a table by its key. On Postgres the database's own clock counts instead.
    LATEST_TIME =
        "SELECT COALESCE(MAX(t), 0) FROM (\
             SELECT MAX(MAX(started_at), COALESCE(MAX(ended_at), 0)) AS t FROM session \
             UNION ALL SELECT MAX(created_at) \
             FROM (SELECT created_at FROM state ORDER BY id DESC LIMIT 100) \
             UNION ALL SELECT MAX(ended_at) \
             FROM (SELECT ended_at FROM attempt ORDER BY rowid DESC LIMIT 100) \
             UNION ALL SELECT MAX(ended_at) FROM state \
             WHERE id IN (SELECT state FROM output ORDER BY rowid DESC LIMIT 100))",
    postgres now!();
    END_SESSION = "UPDATE session SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
    END_OTHERS = "UPDATE session SET ended_at = $2 WHERE id <> $1 AND ended_at IS NULL";
    END_OLDER =
        "UPDATE session \
         SET ended_at = $2 \
         WHERE id <> $1 AND host = $3 AND ended_at IS NULL";
    /// Reads the sessions that hold states and have ended, or never existed.
    LOST_SESSIONS =
        "SELECT DISTINCT s.session \
         FROM state s \
         WHERE s.status = 'QUEUED' \
             AND NOT EXISTS (SELECT 1 FROM session \
                 WHERE session.id = s.session AND session.ended_at IS NULL) \
             AND EXISTS (SELECT 1 FROM run WHERE run.id = s.run AND run.status = 'RUNNING')";
    /// Reads how a transaction has ended: `committed`, `aborted` or `in progress`. NULL stands for
    /// one that is too old, or that this server has not seen. SQLite has no such transactions.
    TRANSACTION_END = "SELECT NULL WHERE $1 IS NULL",
    postgres "SELECT CASE WHEN $1::TEXT::xid8 < pg_snapshot_xmax(pg_current_snapshot()) \
              THEN pg_xact_status($1::TEXT::xid8) END";
    /// Makes the commit of this transaction unsynced: it reaches the disk with the next synced
    /// commit. (On SQLite that is a setting of the connection.)
    UNSYNCED = "SELECT 1",
    postgres "SELECT set_config('synchronous_commit', 'off', true)";
}

/// Checks that the database answers.
pub(crate) const PING: &str = "SELECT 1";

/// The heartbeat of a host on Postgres. Renews its session and expires overdue ones. Returns
/// whether the session is alive, when the next state is due, and which sessions hold states
/// although they have ended or never existed. A session that was overdue itself expires none:
/// the database may have been unreachable for the other hosts, too.
pub(crate) const HEARTBEAT: &str = concat!(
    "WITH RECURSIVE ",
    claimable!(""),
    ", clock AS (",
    now!(),
    " AS now), \
     me AS (SELECT expires_at FROM session WHERE id = $1 AND ended_at IS NULL), \
     renewed AS (UPDATE session SET expires_at = clock.now + $2 FROM clock \
                 WHERE id = $1 AND ended_at IS NULL RETURNING id), \
     ended AS (UPDATE session SET ended_at = clock.now FROM clock, me \
               WHERE session.ended_at IS NULL AND session.id <> $1 \
               AND session.expires_at < clock.now AND me.expires_at >= clock.now \
               RETURNING session.id) \
     SELECT clock.now, (SELECT COUNT(*) FROM renewed), \
     (SELECT MIN(due_at) FROM (SELECT due_at FROM ready UNION ALL SELECT due_at FROM delayed) \
      all_due), \
     ARRAY(SELECT DISTINCT s.session FROM state s WHERE s.status = 'QUEUED' \
           AND (s.session IN (SELECT id FROM ended) OR NOT EXISTS \
                (SELECT 1 FROM session \
                 WHERE session.id = s.session AND session.ended_at IS NULL))), \
     ARRAY(SELECT id FROM ended) FROM clock"
);

/// The channel of the hosts' notifications.
pub(crate) const CHANNEL: &str = "exosphere";

/// Sends a notification on [`CHANNEL`].
pub(crate) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Reads the settings by which commits may be lost with the machine.
pub(crate) const DURABILITY: &str =
    "SELECT current_setting('synchronous_commit'), current_setting('fsync')";
