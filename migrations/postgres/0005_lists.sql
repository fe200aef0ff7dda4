-- What lists show is beside names, in rows that are short. What it was read from
-- before, bodies of graphs and descriptions of plugins, may have megabytes each.

-- Of the current revision: its number, how many nodes it has, when it was made.
ALTER TABLE graph ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
ALTER TABLE graph ADD COLUMN nodes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE graph ADD COLUMN applied_at BIGINT NOT NULL DEFAULT 0;
UPDATE graph SET number = r.number, nodes = COALESCE(json_array_length(r.body::JSON -> 'nodes'), 0),
    applied_at = r.created_at
FROM revision r WHERE r.id = graph.current;

-- The bytes of the component, and the names of its nodes: a JSON array.
ALTER TABLE plugin ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE plugin ADD COLUMN node_names TEXT NOT NULL DEFAULT '[]';
UPDATE plugin SET size = c.size, node_names = COALESCE(
    (SELECT json_agg(n ->> 'name')::TEXT FROM json_array_elements(c.nodes::JSON) n), '[]')
FROM component c WHERE c.digest = plugin.digest;
