-- Indices of lists. Lists are in the order of an index, so that a page costs what it shows.

-- The runs of a namespace and those of a graph, by status, the newest last. A list of several
-- statuses merges them; run_list, which had no status, is not needed any more.
DROP INDEX run_list;
CREATE INDEX run_by_status ON run (namespace, status, created_at, id);
CREATE INDEX run_by_graph ON run (graph, status, created_at, id);

-- The failed states of a run by kind, and by the first characters of the message, in path order
-- (MESSAGE_FILTER_CHARS in filter.rs). Only failures write to them.
CREATE INDEX state_failure_kind ON state (run, kind, path) WHERE status = 'ERRORED';
CREATE INDEX state_failure_message ON state (run, substr(message, 1, 64), path)
    WHERE status = 'ERRORED';
