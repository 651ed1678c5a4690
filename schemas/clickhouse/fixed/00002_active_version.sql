-- Which version of the tables reads use: the row with the highest serial, which is the
-- sequence of the decision in the log of operations. The others tell when which
-- version was live.
CREATE TABLE IF NOT EXISTS active_version{{.OnCluster}}
(
    name        LowCardinality(String),
    serial      UInt64,
    version     UInt32,
    switched_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {{replacing ""}}
ORDER BY (name, serial)
SETTINGS index_granularity = 256, {{.Window}}
