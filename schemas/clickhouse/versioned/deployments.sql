-- Deployments as they stand. The index by id finds another account's deployment, the
-- ones by leaves a hand or a value in metadata: that of eight granules at a time is looked
-- at first, and that of each granule only where it may match. By the key alone a range of
-- time has a granule in each part, where the account ends and the next begins; the index by
-- time leaves the parts of that time.
-- A page may lie apart in as many granules as it has rows, hence small ones.
CREATE TABLE IF NOT EXISTS deployments{{.Suffix}}{{.OnCluster}}
(
    {{template "run"}},
    INDEX by_time id       TYPE minmax GRANULARITY 1,
    INDEX by_id  id        TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_run invoke_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_leaf8 leaves   TYPE bloom_filter(0.01) GRANULARITY 8,
    INDEX by_leaf  leaves   TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 128, {{.Apart}}, {{.OneStream}}, {{.Merges}}, {{.Window}}
