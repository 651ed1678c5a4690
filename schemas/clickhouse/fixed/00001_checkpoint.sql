-- How far a projection has come in each stream. An attempt is a version of the
-- tables. Written after all rows that it speaks of, so it may lag but never lead. A
-- stream's name with " mended" behind it tells which decision about events that were
-- set aside is done.
CREATE TABLE IF NOT EXISTS checkpoint{{.OnCluster}}
(
    name    LowCardinality(String),
    attempt UInt32,
    stream  LowCardinality(String),
    pos     UInt64,
    time_ms Int64
)
ENGINE = {{replacing "pos"}}
ORDER BY (name, attempt, stream)
SETTINGS index_granularity = 256, {{.Window}}
