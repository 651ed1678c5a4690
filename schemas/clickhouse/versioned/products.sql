CREATE TABLE IF NOT EXISTS products{{.Suffix}}{{.OnCluster}}
(
    account     String,
    id          UUID,
    name        String,
    description String,
    extra       String CODEC(ZSTD(1)), -- a JSON object, or nothing
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
