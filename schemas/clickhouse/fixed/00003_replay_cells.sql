-- Cells of the matrix that a switch to a rebuilt version would change: what its
-- preview lists. A comparison is a replay and the position that it compared at.
CREATE TABLE IF NOT EXISTS replay_cells{{.OnCluster}}
(
    account          String,
    comparison       String,
    seq              UInt64,
    product_name     String,
    environment_name String,
    from_version     String,
    from_id          FixedString(16),
    from_ms          Int64,
    to_version       String,
    to_id            FixedString(16),
    to_ms            Int64
)
ENGINE = {{replacing ""}}
ORDER BY (account, comparison, seq)
SETTINGS index_granularity = 256, {{.Window}}
