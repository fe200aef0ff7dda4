-- The cost of runs.

-- The CPU time of all attempts, in microseconds, and the largest memory of one, in bytes. Runs of
-- before have those of the attempts that are stored.
ALTER TABLE run ADD COLUMN cpu_us INTEGER NOT NULL DEFAULT 0 CHECK (cpu_us >= 0);
ALTER TABLE run ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0);
UPDATE run SET cpu_us = cost.cpu_us, memory_bytes = cost.memory_bytes
FROM (
    SELECT run, CAST(COALESCE(SUM(cpu_us), 0) AS BIGINT) AS cpu_us,
        COALESCE(MAX(memory_bytes), 0) AS memory_bytes
    FROM (
        SELECT s.run, s.cpu_us, s.memory_bytes FROM state s
        WHERE s.status IN ('SUCCESS', 'PRUNED', 'ERRORED')
        UNION ALL
        SELECT s.run, a.cpu_us, a.memory_bytes FROM attempt a
        JOIN state s ON s.id = a.state
        WHERE a.number < s.attempt OR s.status NOT IN ('SUCCESS', 'PRUNED', 'ERRORED')
    ) used
    GROUP BY run
) cost
WHERE cost.run = run.id;
