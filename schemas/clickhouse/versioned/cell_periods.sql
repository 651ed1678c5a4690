-- The newest success and the newest attempt of each cell in each period that has
-- one, as the matrix shows them: a past moment is answered from the rows of its own
-- period in cells and past_attempts, and from these for the time before. ver as in
-- current. A page asks for products that lie apart, hence the small granules.
CREATE TABLE IF NOT EXISTS cell_periods{{.Suffix}}{{.OnCluster}}
(
    account        String,
    period         Int32, -- of 10 days, since 1970
    succeeded      Bool,
    product_id     UUID,
    environment_id UUID,
    inc            UInt32,
    id             FixedString(16),
    ver            UInt128 CODEC(ZSTD(1)),
    at_ms          Int64 ALIAS toUInt64(bitShiftRight(ver, 64)) - 9223372036854775808,
    pos            UInt64 ALIAS toUInt64(bitAnd(ver, 18446744073709551615)),
    stream         LowCardinality(String),
    version        String CODEC(ZSTD(1)),
    shown          String CODEC(ZSTD(1))
)
ENGINE = {{replacing "ver"}}
ORDER BY (account, period, succeeded, product_id, environment_id, inc)
SETTINGS index_granularity = 64, {{.Scattered}}, {{.Merges}}, {{.Window}}
