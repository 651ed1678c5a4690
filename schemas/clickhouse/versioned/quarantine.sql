-- Events that could not be applied to the tables of this version, or wait behind
-- one, as they stand. A frame that holds no events counts for several.
CREATE TABLE IF NOT EXISTS quarantine{{.Suffix}}{{.OnCluster}}
(
    stream       LowCardinality(String),
    pos          UInt64 CODEC(Delta, ZSTD(1)),
    account      String,
    id           String,
    type         String,
    subject      String,
    received_ms  Int64,
    frame        Bool,
    events       UInt64,
    state        LowCardinality(String),
    reason       String CODEC(ZSTD(1)),
    behind       UInt64, -- the pos that it waits for, 0 for none
    code_version LowCardinality(String),
    attempts     UInt32,
    decision     UInt64,
    aside_ms     Int64,
    turn         UInt64
)
ENGINE = {{replacing "turn"}}
ORDER BY (stream, pos)
SETTINGS index_granularity = 256, {{.Merges}}, {{.Window}}
