-- Deployments as they stand. The index by id finds another account's deployment, the
-- one by extra_leaves a value in metadata. Of hands and of metadata an index of eight
-- granules at a time is looked at first, and that of each granule only where it may match.
-- A page may lie apart in as many granules as it has rows, hence small ones.
CREATE TABLE IF NOT EXISTS deployments{{.Suffix}}{{.OnCluster}}
(
    {{template "run"}},
    INDEX by_id  id        TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_run invoke_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_hand8  (done_by, done_by_email, done_by_name) TYPE bloom_filter(0.01) GRANULARITY 8,
    INDEX by_hand   (done_by, done_by_email, done_by_name) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_extra8 extra_leaves TYPE bloom_filter(0.01) GRANULARITY 8,
    INDEX by_extra  extra_leaves TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {{replacing "pos"}}
ORDER BY (account, id)
SETTINGS index_granularity = 128, {{.Scattered}}, {{.Merges}}, {{.Window}}
