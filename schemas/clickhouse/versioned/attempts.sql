-- The newest run of each cell that is no success; ver as in current.
CREATE TABLE IF NOT EXISTS attempts{{.Suffix}}{{.OnCluster}}
(
    {{template "cell"}},
    ver            UInt128 CODEC(ZSTD(1))
)
ENGINE = {{replacing "ver"}}
ORDER BY (account, product_id, environment_id, inc)
SETTINGS index_granularity = 256, {{.Scattered}}, {{.Merges}}, {{.Window}}
