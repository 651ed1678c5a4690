-- What the names of products and environments mean, where they do not mean what
-- the id is derived from: after a rename.
CREATE TABLE IF NOT EXISTS names{{.Suffix}}{{.OnCluster}}
(
    account String,
    object  LowCardinality(String),
    name    String,
    id      UUID,
    stream  LowCardinality(String),
    pos     UInt64
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, object, name)
SETTINGS index_granularity = 256, {{.Merges}}, {{.Window}}
