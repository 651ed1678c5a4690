CREATE TABLE IF NOT EXISTS versions{{.Suffix}}{{.OnCluster}}
(
    account           String,
    id                UUID,
    product_id        UUID,
    version           String CODEC(ZSTD(1)),
    incarnation       UInt16, -- of the product
    {{template "commit"}},
    sha_fixed         Bool,
    created_ms        Int64 CODEC(Delta, ZSTD(1)),
    stream            LowCardinality(String),
    pos               UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, product_id, id)
SETTINGS index_granularity = 1024, {{.Merges}}, {{.Window}}
