-- The newest success of each cell. ver is effective time << 64 | pos, so that a
-- late event of an old success does not displace a newer one.
CREATE TABLE IF NOT EXISTS current{{.Suffix}}{{.OnCluster}}
(
    {{template "cell"}},
    ver            UInt128 CODEC(ZSTD(1))
)
ENGINE = {{replacing "ver"}}
ORDER BY (account, product_id, environment_id, inc)
SETTINGS index_granularity = 256, {{.Scattered}}, {{.Merges}}, {{.Window}}
