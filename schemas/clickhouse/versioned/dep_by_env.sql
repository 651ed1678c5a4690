-- Deployments by environment and product: what delivery metrics are made of, and a
-- page of a product or of a cell, whose rows stand together here. The key holds nothing
-- that a later event could change; the index by id skips what is outside of a page's time.
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
    mode           LowCardinality(String),
    rest           String CODEC(ZSTD(1)), -- as of a run
    INDEX by_time id TYPE minmax GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, environment_id, product_id, inc, id)
SETTINGS index_granularity = 128, {{.Scattered}}, {{.Merges}}, {{.Window}}
