CREATE TABLE IF NOT EXISTS environments{{.Suffix}}{{.OnCluster}}
(
    account     String,
    id          UUID,
    name        String,
    description String,
    extra       String CODEC(ZSTD(1)), -- a JSON object, or nothing
    class       LowCardinality(String), -- dev, test, staging, production; nothing for any other
    concurrency_limit UInt16, -- 0: the default, as of the next
    stale_minutes     UInt32,
    incarnation UInt16,
    deleted     Bool,
    created_ms  Int64,
    stream      LowCardinality(String),
    pos         UInt64,
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 256, {{.Merges}}, {{.Window}}
