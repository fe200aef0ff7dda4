-- The nodes of each component by name, so that whoever looks for the exporters of
-- a node reads no descriptions.
CREATE TABLE exported (
    digest TEXT COLLATE "C" NOT NULL REFERENCES component (digest),
    node TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (digest, node)
);
INSERT INTO exported (digest, node)
    SELECT DISTINCT c.digest, n.value ->> 'name'
    FROM component c, json_array_elements(c.nodes::JSON) n;
