-- Every success of a product in an environment: what was live at a past moment.
CREATE TABLE IF NOT EXISTS cells{{.Suffix}}{{.OnCluster}}
(
    {{template "cell"}}
)
ENGINE = {{replacing "ver"}}
ORDER BY (account, product_id, environment_id, inc, at_ms, id)
SETTINGS index_granularity = 1024, {{.Window}}
