-- Nothing to do here: Postgres keeps long texts beside their tables anyway. The
-- two sets of migrations have the same names.
SELECT 1;
