-- Every run of a product in an environment that is no success, after each of its
-- events, as cells has the successes.
CREATE TABLE IF NOT EXISTS past_attempts{{.Suffix}}{{.OnCluster}}
(
    {{template "cell"}},
    period         Int32, -- as in cell_periods
    INDEX by_received received_ms TYPE minmax GRANULARITY 8 -- what was known then of later periods
)
ENGINE = {{replacing ""}}
ORDER BY (account, period, product_id, environment_id, inc, at_ms, stream, pos)
SETTINGS index_granularity = 128, {{.Scattered}}, {{.Merges}}, {{.Window}}
