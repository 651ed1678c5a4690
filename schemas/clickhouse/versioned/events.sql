-- Every event: the audit log, and what was known at a past moment. A page of it
-- is read in the order of the key and stops when it is full; the indexes skip what
-- a filter cannot match. Of a subject the rows are few, and each granule that is read in
-- vain is a thousand: hence the finer index.
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
    INDEX by_id         id            TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_subject    subject       TYPE bloom_filter(0.0005) GRANULARITY 1,
    INDEX by_credential credential_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_actor      actor         TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_type       type          TYPE set(100) GRANULARITY 1,
    INDEX by_mode       mode          TYPE set(4) GRANULARITY 1,
    INDEX by_received   received_ms   TYPE minmax GRANULARITY 1
)
ENGINE = {{replacing ""}}
ORDER BY (account, stream, pos)
SETTINGS index_granularity = 1024, {{.Scattered}}, {{.Merges}}, {{.Window}}
