-- The newest success and the newest attempt of each cell in each period that has
-- one, in short: a past moment is answered from the rows of its own period in cells
-- and past_attempts, and from these for the time before. ver as in current. A page
-- asks for products that lie apart, hence the small granules.
CREATE TABLE IF NOT EXISTS cell_periods{{.Suffix}}{{.OnCluster}}
(
    account        String,
    period         Int32, -- of 10 days, since 1970
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
ORDER BY (account, period, product_id, environment_id, inc, succeeded)
SETTINGS index_granularity = 64, {{.Merges}}, {{.Window}}
