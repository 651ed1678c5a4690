-- Finds deployments by environment and product, whose rows are in deployments,
-- and is what delivery metrics are made of. The key holds nothing that a later
-- event could change.
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
    at_ms          Int64 CODEC(Delta, ZSTD(1)),
    commit_ms      Int64 CODEC(Delta, ZSTD(1)), -- extra_metadata.commit_time
    mode           LowCardinality(String)
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, environment_id, product_id, inc, id)
SETTINGS index_granularity = 256, {{.Scattered}}, {{.Merges}}, {{.Window}}
