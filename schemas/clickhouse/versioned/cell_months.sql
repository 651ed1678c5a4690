-- The newest success and the newest attempt of each cell in each month that has
-- one, in short: a past moment is answered from the rows of its own month in cells
-- and past_attempts, and from these for the time before. ver as in current.
CREATE TABLE IF NOT EXISTS cell_months{{.Suffix}}{{.OnCluster}}
(
    account        String,
    month          Int32, -- of 30 days, since 1970
    product_id     UUID,
    environment_id UUID,
    inc            UInt32,
    succeeded      Bool,
    at_ms          Int64 CODEC(Delta, ZSTD(1)),
    ver            UInt128 CODEC(ZSTD(1)),
    stream         LowCardinality(String),
    pos            UInt64 CODEC(Delta, ZSTD(1)),
    version        String CODEC(ZSTD(1))
)
ENGINE = {{replacing "ver"}}
ORDER BY (account, month, product_id, environment_id, inc, succeeded)
SETTINGS index_granularity = 256, {{.Window}}
