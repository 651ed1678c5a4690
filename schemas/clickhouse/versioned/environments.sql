CREATE TABLE IF NOT EXISTS environments{{.Suffix}}{{.OnCluster}}
(
    account     String,
    id          UUID,
    name        String,
    class       LowCardinality(String), -- dev, test, staging, production; nothing for any other
    incarnation UInt16,
    created_ms  Int64,
    stream      LowCardinality(String),
    pos         UInt64,
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 256, {{.Window}}
