-- Releases as they stand. The index by id finds another account's release.
CREATE TABLE IF NOT EXISTS releases{{.Suffix}}{{.OnCluster}}
(
    account     String,
    id          FixedString(16),
    name        String,
    description String,
    status      LowCardinality(String),
    extra       String CODEC(ZSTD(1)), -- a JSON object, or nothing
    created_ms  Int64,
    versions    String CODEC(ZSTD(1)), -- a JSON array, as in the event
    stream      LowCardinality(String),
    pos         UInt64,
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 256, {{.Merges}}, {{.Window}}
