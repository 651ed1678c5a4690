-- Builds as they stand.
CREATE TABLE IF NOT EXISTS builds{{.Suffix}}{{.OnCluster}}
(
    {{template "run"}},
    version_id        UUID,
    begun_ms          Int64 CODEC(Delta, ZSTD(1)), -- when it started, as far as that is known
    INDEX by_time    id         TYPE minmax GRANULARITY 1,
    INDEX by_id      id         TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_version version_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_leaf    leaves     TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 1024, {{.Scattered}}, {{.OneStream}}, {{.Merges}}, {{.Window}}
