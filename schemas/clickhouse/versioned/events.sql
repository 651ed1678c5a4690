-- Every event: the audit log, and what was known at a past moment.
CREATE TABLE IF NOT EXISTS events{{.Suffix}}{{.OnCluster}}
(
    account         String,
    stream          LowCardinality(String),
    pos             UInt64 CODEC(Delta, ZSTD(1)),
    id              FixedString(16),
    type            LowCardinality(String),
    subject         String CODEC(ZSTD(1)),
    received_ms     Int64 CODEC(Delta, ZSTD(1)),
    effective_ms    Int64 CODEC(Delta, ZSTD(1)),
    credential_id   LowCardinality(String),
    credential_name LowCardinality(String),
    mode            LowCardinality(String),
    actor           LowCardinality(String),
    backfilled      Bool,
    flag            LowCardinality(String),
    status          LowCardinality(String),
    request         String CODEC(ZSTD(3)),
    INDEX by_subject subject TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing ""}}
ORDER BY (account, stream, pos)
SETTINGS {{.Window}}
