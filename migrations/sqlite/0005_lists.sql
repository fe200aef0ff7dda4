-- What lists show is beside names, in rows that are short. What it was read from
-- before, bodies of graphs and descriptions of plugins, may have megabytes each.

-- Of the current revision: its number, how many nodes it has, when it was made.
ALTER TABLE graph ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
ALTER TABLE graph ADD COLUMN nodes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE graph ADD COLUMN applied_at BIGINT NOT NULL DEFAULT 0;
UPDATE graph SET (number, nodes, applied_at) =
    (SELECT r.number, COALESCE(json_array_length(r.body, '$.nodes'), 0), r.created_at
     FROM revision r WHERE r.id = graph.current)
WHERE EXISTS (SELECT 1 FROM revision r WHERE r.id = graph.current);

-- The bytes of the component, and the names of its nodes: a JSON array.
ALTER TABLE plugin ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE plugin ADD COLUMN node_names TEXT NOT NULL DEFAULT '[]';
UPDATE plugin SET (size, node_names) =
    (SELECT c.size, (SELECT json_group_array(n.value ->> 'name') FROM json_each(c.nodes) n)
     FROM component c WHERE c.digest = plugin.digest)
WHERE EXISTS (SELECT 1 FROM component c WHERE c.digest = plugin.digest);
