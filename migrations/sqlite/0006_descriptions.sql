-- The nodes of each component by name, so that whoever looks for the exporters of
-- a node reads no descriptions.
CREATE TABLE exported (
    digest TEXT NOT NULL REFERENCES component (digest),
    node TEXT NOT NULL,
    PRIMARY KEY (digest, node)
) WITHOUT ROWID;
INSERT INTO exported (digest, node)
    SELECT DISTINCT c.digest, json_extract(n.value, '$.name')
    FROM component c, json_each(c.nodes) n;
