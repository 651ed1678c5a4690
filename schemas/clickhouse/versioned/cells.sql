-- Every success of a product in an environment, after each of its events: what
-- was live at a past moment, and what was then known of it.
CREATE TABLE IF NOT EXISTS cells{{.Suffix}}{{.OnCluster}}
(
    {{template "cell"}},
    period         Int32 -- as in cell_periods
)
ENGINE = {{replacing ""}}
ORDER BY (account, period, product_id, environment_id, inc, at_ms, stream, pos)
SETTINGS index_granularity = 128, {{.Scattered}}, {{.Merges}}, {{.Window}}
