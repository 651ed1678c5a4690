-- Finds deployments by environment and product; the rows are in deployments.
CREATE TABLE IF NOT EXISTS dep_by_env{{.Suffix}}{{.OnCluster}}
(
    account        String,
    environment_id UUID,
    product_id     UUID,
    inc            UInt32,
    id             FixedString(16),
    pos            UInt64 CODEC(Delta, ZSTD(1)),
    version        String CODEC(ZSTD(1)),
    status         LowCardinality(String),
    at_ms          Int64 CODEC(Delta, ZSTD(1))
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, environment_id, product_id, inc, id)
SETTINGS index_granularity = 1024, {{.Window}}
