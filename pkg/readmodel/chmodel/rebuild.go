package chmodel

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

const (
	// compareTimeout bounds one statement of a comparison.
	compareTimeout = time.Hour
	// spillBytes is what a comparison groups in memory; beyond it goes to disk.
	spillBytes = 128 << 20
	// namedAccounts is how many differing accounts are named.
	namedAccounts = 10
	// searchedAccounts is up to how many differing accounts the search for
	// differing rows leaves out the others.
	searchedAccounts = 500
)

// cloners is how many tables of a version are cloned at a time: a projection waits.
const cloners = 8

// codeSyntax is the code of a statement that the server does not understand.
const codeSyntax = 62

// cloneSuffix follows the name of a table in that of its clone.
const cloneSuffix = "_clone"

// slowOptions are for statements over whole tables: one thread, so that readers
// keep the others, and bounded memory.
func (m *Model) slowOptions() *clickhouse.Options {
	o := m.options()
	o.ReadTimeout = compareTimeout
	o.MaxOpenConns, o.MaxIdleConns = 2, 1
	o.Settings = clickhouse.Settings{
		"max_execution_time": int(compareTimeout / time.Second), "max_threads": 1,
		"max_bytes_before_external_group_by": spillBytes, "max_bytes_ratio_before_external_group_by": 0,
		"max_bytes_before_external_sort": spillBytes, "max_bytes_ratio_before_external_sort": 0,
	}
	return o
}

var versionedTable = regexp.MustCompile(`^(?:` + strings.Join(tables, "|") + `)_v([0-9]+)$`)

// TableVersions lists the versions that have tables, also only some of them.
func (m *Model) TableVersions(ctx context.Context) ([]uint32, error) {
	var out []uint32
	names, err := m.tableNames(ctx)
	for _, name := range names {
		if parts := versionedTable.FindStringSubmatch(name); parts != nil {
			n, err := strconv.ParseUint(parts[1], 10, 32)
			if err == nil {
				out = append(out, uint32(n))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

func (m *Model) tableNames(ctx context.Context) ([]string, error) {
	var out []string
	err := m.ask(ctx, "list tables", `SELECT name FROM system.tables WHERE database = {database:String} ORDER BY name`,
		params{"database": m.cfg.Database}, func(rows scanner) error {
			var name string
			err := rows.Scan(&name)
			out = append(out, name)
			return err
		})
	return out, err
}

// Stored counts the events of a version, about: some may be counted twice until
// ClickHouse has merged them.
func (m *Model) Stored(ctx context.Context, version uint32) (n uint64, err error) {
	err = m.ask(ctx, "count events", `SELECT count() FROM events`+suffix(version), nil, func(rows scanner) error { return rows.Scan(&n) })
	return n, err
}

// What a table may merge while it is filled: nothing. These settings hold at once.
const (
	mergeNothing = " MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1"
	mergeAgain   = " RESET SETTING max_bytes_to_merge_at_max_space_in_pool, max_bytes_to_merge_at_min_space_in_pool"
)

// DeferMerges keeps ClickHouse from merging parts of a version that is being
// filled: merging every part several times as the tables grow took half of its
// processor time.
//
// It is how a rebuild begins, so that one which could not be compared in the end is
// refused here, before hours are spent on it.
func (m *Model) DeferMerges(ctx context.Context, version uint32) error {
	if m.cfg.Cluster != "" {
		return errReplicated
	}
	if err := askOn(ctx, m.slow, m.cfg.QueryTimeout, "see whether tables can be cloned", "EXPLAIN AST CREATE TABLE a CLONE AS b", nil,
		func(scanner) error { return nil }); err != nil {
		return cloneFault(err)
	}
	return m.alter(ctx, version, mergeNothing)
}

// cloneFault says of a server that does not know the statement that it is too old.
func cloneFault(err error) error {
	if code, answered := serverCode(err); answered && code == codeSyntax {
		return fault.New(fault.Precondition, "REPLAY_UNSUPPORTED", "This ClickHouse cannot clone tables (CREATE TABLE … CLONE AS); 26.7 can.").Because(err)
	}
	return err
}

// AllowMerges ends what DeferMerges began. Merging goes on beside whatever comes.
func (m *Model) AllowMerges(ctx context.Context, version uint32) error {
	if m.cfg.Cluster != "" {
		return nil
	}
	return m.alter(ctx, version, mergeAgain)
}

// Parts counts the parts of the table of a version that has the most.
func (m *Model) Parts(ctx context.Context, version uint32) (n uint64, err error) {
	// Not as the reader, who is not to see how the tables are stored.
	err = askOn(ctx, m.slow, m.cfg.QueryTimeout, "count parts", `
		SELECT max(n) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = {database:String} AND endsWith(table, {suffix:String}) GROUP BY table)`,
		params{"database": m.cfg.Database, "suffix": suffix(version)}, func(rows scanner) error { return rows.Scan(&n) })
	return n, err
}

func (m *Model) alter(ctx context.Context, version uint32, what string) error {
	c, err := m.dial(ctx, m.cfg.Database)
	if err != nil {
		return classify(ctx, "connect", err)
	}
	defer c.Close()
	for _, t := range tables {
		if err := c.Do(ctx, ch.Query{Body: "ALTER TABLE " + t + suffix(version) + what}); err != nil {
			return classify(ctx, "set up table "+t+suffix(version), err)
		}
	}
	return nil
}

// errReplicated refuses to rebuild replicated tables beside themselves. A verdict stands
// on clones of both versions at one position, which a server makes by links to its
// own parts while the projector stands still. Of several servers each is at a place of
// its own, and clones would have to be replicated before they say anything: no server
// to try that on was at hand, and a wrong verdict is worse than none.
var errReplicated = fault.New(fault.Precondition, "REPLAY_UNSUPPORTED",
	"The tables of this read model are replicated: they cannot be cloned at one position, so that a rebuild could not be compared with them.")

// Clone makes clones of the tables of a version, of which there must be none. A
// clone shares the parts of its table, so it takes no room and no time that
// grows with the rows. Nothing may be stored in the version meanwhile.
func (m *Model) Clone(ctx context.Context, version uint32) error {
	if m.cfg.Cluster != "" {
		return errReplicated
	}
	// On connections that are open already. Clones need not outlive a crash.
	group, groupCtx := errgroup.WithContext(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"fsync_metadata": 0})))
	group.SetLimit(cloners)
	for _, table := range tables {
		group.Go(func() error {
			name := table + suffix(version)
			if err := m.slow.Exec(groupCtx, "CREATE TABLE "+name+cloneSuffix+" CLONE AS "+name); err != nil {
				return fmt.Errorf("clone table %s: %w", name, err)
			}
			return nil
		})
	}
	err := group.Wait()
	if refused := cloneFault(err); fault.KindOf(refused) == fault.Precondition {
		return refused
	}
	return classify(ctx, "clone the tables", err)
}

// DropClones removes all clones, also those that a crash left behind.
func (m *Model) DropClones(ctx context.Context) error {
	names, err := m.tableNames(ctx)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, cloneSuffix) })
	if len(names) == 0 {
		return nil
	}
	c, err := m.dial(ctx, m.cfg.Database)
	if err != nil {
		return classify(ctx, "connect", err)
	}
	defer c.Close()
	for _, name := range names {
		if err := c.Do(ctx, ch.Query{Body: "DROP TABLE IF EXISTS `" + name + "` SYNC"}); err != nil {
			return classify(ctx, "drop clone "+name, err)
		}
	}
	return nil
}

// newestOf are the tables that keep one row of several that never displace each
// other in the order of the log: a part of the log may hold an older one only.
var newestOf = map[string]bool{"current": true, "attempts": true, "cell_periods": true}

// Compare compares the clones of two versions.
func (m *Model) Compare(ctx context.Context, c replay.Comparison) (replay.Findings, error) {
	var f replay.Findings
	accounts := map[string]bool{}
	for _, name := range tables {
		if name == quarantineTable {
			continue // it says what the others lack
		}
		t, err := m.compareTable(ctx, c, name)
		if err != nil {
			return f, err
		}
		found := replay.Table{Name: name, HashOld: hexOf(&t.hash[0]), HashNew: hexOf(&t.hash[1])}
		for account, a := range t.accounts {
			accounts[account] = true
			found.Rows += a.rows[1]
		}
		if differing := t.differing(); len(differing) > 0 {
			found.Accounts = differing[:min(len(differing), namedAccounts)]
			if err := t.searchRows(ctx, &found, &f, differing); err != nil {
				return f, err
			}
		}
		switch name {
		case "events":
			f.Events = found.Rows
		case "deployments":
			f.Deployments = found.Rows
		case "current":
			if found.HashOld != found.HashNew {
				if f.Cells, err = m.keepChangedCells(ctx, c, &t); err != nil {
					return f, err
				}
			}
		}
		f.Tables = append(f.Tables, found)
	}
	f.Accounts = len(accounts)
	for side, version := range []uint32{c.Old, c.New} {
		var err error
		if f.Quarantined[side], err = m.quarantinedIn(ctx, c.Part, version); err != nil {
			return f, err
		}
	}
	return f, nil
}

// quarantinedIn counts what the clone of a version lacks of a part of the log.
func (m *Model) quarantinedIn(ctx context.Context, part replay.Part, version uint32) (n uint64, err error) {
	where, b := "state = 'quarantined'", params{}
	if part.Account != "" {
		where += " AND account = {account:String}"
		b["account"] = part.Account
	}
	if part.From.Offset > 0 {
		where += " AND stream = {stream:String} AND pos >= {from:UInt64}"
		b["stream"], b["from"] = part.From.Stream, uint64(part.From.Offset)
	}
	err = m.ask(ctx, "count what is set aside", `SELECT sum(events) FROM `+quarantineTable+suffix(version)+cloneSuffix+` FINAL WHERE `+where,
		b, func(rows scanner) error { return rows.Scan(&n) })
	return n, err
}

// comparedTable is one table of a comparison.
type comparedTable struct {
	model    *Model
	name     string
	sides    [2]string // what to select from and where, old and new
	params   params
	key      []string // its sorting key
	hash     [2]big.Int
	accounts map[string]*comparedAccount
}

type comparedAccount struct {
	rows [2]uint64
	hash [2]string
}

func (m *Model) compareTable(ctx context.Context, c replay.Comparison, name string) (comparedTable, error) {
	t := comparedTable{model: m, name: name, params: params{}, accounts: map[string]*comparedAccount{}}
	var where []string
	if c.Part.Account != "" {
		where = append(where, "account = {account:String}")
		t.params["account"] = c.Part.Account
	}
	if c.Part.From.Offset > 0 {
		where = append(where, "pos >= {from:UInt64}")
		t.params["from"], t.params["stream"] = uint64(c.Part.From.Offset), c.Part.From.Stream
		if name != "dep_by_env" {
			where = append(where, "stream = {stream:String}")
		}
	}
	var err error
	if t.key, err = m.sortingKey(ctx, name+suffix(c.Old)+cloneSuffix); err != nil {
		return t, err
	}
	for side, version := range []uint32{c.Old, c.New} {
		conditions := slices.Clone(where)
		if side == 1 && c.Part.From.Offset > 0 && newestOf[name] {
			conditions = append(conditions, fmt.Sprintf("(%s) IN (SELECT %[1]s FROM %s)", strings.Join(t.key, ", "), t.sides[0]))
		}
		if name == "dep_by_env" && c.Part.From.Offset > 0 { // it does not say which stream; an account's deployments are all of one
			conditions = append(conditions, "account IN (SELECT account FROM deployments"+suffix(version)+cloneSuffix+" WHERE stream = {stream:String})")
		}
		t.sides[side] = name + suffix(version) + cloneSuffix + " FINAL"
		if len(conditions) > 0 {
			t.sides[side] += " WHERE " + strings.Join(conditions, " AND ")
		} else {
			t.sides[side] += " WHERE 1"
		}
		if err := t.sum(ctx, side); err != nil {
			return t, err
		}
	}
	return t, nil
}

// sortingKey gives what tells the rows of a table from each other.
func (m *Model) sortingKey(ctx context.Context, table string) ([]string, error) {
	var key string
	err := m.ask(ctx, "read the key of "+table, `SELECT sorting_key FROM system.tables WHERE database = {database:String} AND name = {name:String}`,
		params{"database": m.cfg.Database, "name": table}, func(rows scanner) error { return rows.Scan(&key) })
	if err == nil && key == "" {
		err = fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "the clone %s is not there", table)
	}
	return strings.Split(key, ", "), err
}

// sum adds up the hashes of one side's rows, by account.
func (t *comparedTable) sum(ctx context.Context, side int) error {
	return t.ask(ctx, "sum up the hashes of "+t.name, `
		SELECT account, count(), toString(sum(reinterpretAsUInt128(sipHash128(*)))) FROM `+t.sides[side]+` GROUP BY account`,
		nil, func(rows scanner) error {
			var account, text string
			var n uint64
			if err := rows.Scan(&account, &n, &text); err != nil {
				return err
			}
			sum, ok := new(big.Int).SetString(text, 10)
			if !ok {
				return fmt.Errorf("%q is no sum", text)
			}
			t.hash[side].Add(&t.hash[side], sum)
			a := t.accounts[account]
			if a == nil {
				a = &comparedAccount{}
				t.accounts[account] = a
			}
			a.rows[side], a.hash[side] = n, text
			return nil
		})
}

func (t *comparedTable) ask(ctx context.Context, doing, sql string, more params, scan func(scanner) error) error {
	p := maps.Clone(t.params)
	maps.Copy(p, more)
	return askOn(ctx, t.model.slow, compareTimeout, doing, sql, p, scan)
}

func (t *comparedTable) differing() []string {
	var out []string
	for account, a := range t.accounts {
		if a.rows[0] != a.rows[1] || a.hash[0] != a.hash[1] {
			out = append(out, account)
		}
	}
	slices.Sort(out)
	return out
}

// hexOf writes a sum modulo 2^128.
func hexOf(sum *big.Int) string {
	var low big.Int
	low.And(sum, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
	return fmt.Sprintf("%032x", &low)
}

// differingKeys selects the keys of the rows that differ, as k, with the number
// of rows on either side.
func (t *comparedTable) differingKeys(narrowed bool) string {
	narrow := ""
	if narrowed {
		narrow = " AND account IN {differing:Array(String)}"
	}
	key := strings.Join(t.key, ", ")
	return fmt.Sprintf(`
		SELECT k, countIf(side = 0) AS olds, countIf(side = 1) AS news FROM (
			SELECT tuple(%s) AS k, 0 AS side, sipHash128(*) AS h FROM %s%s
			UNION ALL
			SELECT tuple(%[1]s) AS k, 1 AS side, sipHash128(*) AS h FROM %[4]s%[3]s)
		GROUP BY k HAVING NOT (olds = 1 AND news = 1 AND min(h) = max(h))`, key, t.sides[0], narrow, t.sides[1])
}

// searchRows counts the rows that differ, and keeps the first if it is the first
// of all tables.
func (t *comparedTable) searchRows(ctx context.Context, found *replay.Table, f *replay.Findings, differing []string) error {
	narrowed := len(differing) <= searchedAccounts
	more := params{}
	if narrowed {
		more["differing"] = differing
	}
	keys := t.differingKeys(narrowed)
	err := t.ask(ctx, "count the differing rows of "+t.name,
		`SELECT countIf(olds = 0), countIf(news = 0), countIf(olds > 0 AND news > 0) FROM (`+keys+`)`, more, func(rows scanner) error {
			return rows.Scan(&found.Added, &found.Removed, &found.Changed)
		})
	if err != nil || f.First != nil {
		return err
	}
	columns, err := t.columns(ctx)
	if err != nil {
		return err
	}
	var sides [2]map[string]string
	for side := range sides {
		sql := fmt.Sprintf(`SELECT [%s] FROM %s AND tuple(%s) = (SELECT min(k) FROM (%s))`,
			strings.Join(columns.texts, ", "), t.sides[side], strings.Join(t.key, ", "), keys)
		err := t.ask(ctx, "read the first differing row of "+t.name, sql, more, func(rows scanner) error {
			var values []string
			err := rows.Scan(&values)
			sides[side] = columns.describe(values)
			return err
		})
		if err != nil {
			return err
		}
	}
	f.First, err = t.difference(ctx, sides)
	return err
}

// columnList is how to show the rows of a table.
type columnList struct{ names, texts []string }

func (t *comparedTable) columns(ctx context.Context) (c columnList, err error) {
	table, _, _ := strings.Cut(t.sides[1], " ")
	err = t.ask(ctx, "read the columns of "+t.name, `
		SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position`,
		params{"database": t.model.cfg.Database, "table": table}, func(rows scanner) error {
			var name, kind string
			err := rows.Scan(&name, &kind)
			c.names = append(c.names, name)
			text := "toString(`" + name + "`)"
			if strings.HasPrefix(kind, "FixedString") || slices.Contains(packed, name) { // bytes, not text
				text = "hex(`" + name + "`)"
			}
			c.texts = append(c.texts, text)
			return err
		})
	return c, err
}

// describe shows a row in the words of the API where a column has other ones.
func (c columnList) describe(values []string) map[string]string {
	row := map[string]string{}
	for i, v := range values {
		name := c.names[i]
		switch {
		case name == "id" && len(v) == 2*len(ulid.ULID{}) && !strings.Contains(v, "-"):
			if b, err := hex.DecodeString(v); err == nil {
				v = ulid.ULID(b).String()
			}
		case name == "scm_sha":
			v = strings.ToLower(v)
		case strings.HasSuffix(name, "_ms"):
			if ms, err := strconv.ParseInt(v, 10, 64); err == nil {
				v = moment(ms).Format(time.RFC3339Nano)
			}
		}
		row[name] = v
	}
	for name, v := range hidden(row) {
		if _, own := row[name]; !own {
			row[name] = v
		}
	}
	return row
}

// hidden gives what a row holds in a column with others.
func hidden(row map[string]string) map[string]string {
	id, asID := ulid.ParseStrict(row["id"])
	rest, asHex := hex.DecodeString(row[restColumn])
	shown, asShown := hex.DecodeString(row[shownColumn])
	if errors.Join(asID, asHex, asShown) != nil || len(rest)+len(shown) == 0 {
		return nil
	}
	var out map[string]string
	var err error
	switch {
	case len(shown) == 0:
		out, err = restColumns(id, string(rest))
	case len(rest) == 0:
		out, err = cellShownColumns(string(shown))
	default:
		out, err = cellRestColumns(id, string(shown), string(rest))
	}
	if err != nil {
		return nil
	}
	return out
}

// packed are the columns that hold several things.
var packed = []string{shownColumn, restColumn}

func (t *comparedTable) difference(ctx context.Context, sides [2]map[string]string) (*replay.Difference, error) {
	old, rebuilt := sides[0], sides[1]
	row := rebuilt
	if row == nil {
		row = old
	}
	d := &replay.Difference{Table: t.name, Account: row["account"], Key: map[string]string{}, Old: old, New: rebuilt}
	for _, k := range t.key {
		d.Key[k] = row[k]
	}
	for name := range row {
		if old != nil && rebuilt != nil && old[name] != rebuilt[name] && !slices.Contains(packed, name) {
			d.Columns = append(d.Columns, name)
		}
	}
	if len(d.Columns) == 0 { // in what a column of its own says otherwise
		for _, name := range packed {
			if old[name] != rebuilt[name] {
				d.Columns = append(d.Columns, name)
			}
		}
	}
	slices.Sort(d.Columns)
	for _, name := range packed {
		delete(old, name)
		delete(rebuilt, name)
	}
	pos, err := strconv.ParseUint(row["pos"], 10, 64)
	if err != nil {
		return d, nil //nolint:nilerr // a table without it says nothing about its event
	}
	// Of the old tables: the rebuilt events may be what is wrong.
	// Where the row does not say which stream it is of, it is a deployment, of a partition.
	events := strings.Replace(strings.Fields(t.sides[0])[0], t.name+"_v", "events_v", 1)
	err = t.ask(ctx, "read the event behind a row", `
		SELECT stream, id, toString(type), subject FROM `+events+` FINAL WHERE account = {whose:String} AND pos = {pos:UInt64} AND ({of:String} IN ('', stream)) ORDER BY stream DESC LIMIT 1`,
		params{"whose": row["account"], "pos": pos, "of": row["stream"]}, func(rows scanner) error {
			var stream, kind, subject string
			var id []byte
			if err := rows.Scan(&stream, &id, &kind, &subject); err != nil {
				return err
			}
			d.Event = &replay.Cause{
				Position: event.Position{Stream: stream, Offset: event.Offset(pos)}.String(), ID: ulid.ULID(id).String(), Type: kind, Subject: subject,
			}
			return nil
		})
	return d, err
}

func comparisonName(replayID, to string) string { return replayID + "@" + to }

// keepChangedCells writes the preview down, so that it stays when the clones go.
func (m *Model) keepChangedCells(ctx context.Context, c replay.Comparison, t *comparedTable) (n uint64, err error) {
	name := comparisonName(c.ReplayID, c.To)
	side := func(side int) string {
		return fmt.Sprintf(`SELECT %d AS side, account, product_id, environment_id, inc, version, id, at_ms, sipHash128(*) AS h FROM %s`, side, t.sides[side])
	}
	sql := fmt.Sprintf(`
		INSERT INTO replay_cells
		SELECT account, {comparison:String}, rowNumberInAllBlocks() + 1, product_name, environment_name,
			from_version, from_id, from_ms, to_version, to_id, to_ms
		FROM (
			SELECT d.account AS account, p.name AS product_name, e.name AS environment_name,
				from_version, from_id, from_ms, to_version, to_id, to_ms
			FROM (
				SELECT account, product_id, environment_id, inc,
					anyIf(version, side = 0) AS from_version, anyIf(id, side = 0) AS from_id, anyIf(at_ms, side = 0) AS from_ms,
					anyIf(version, side = 1) AS to_version, anyIf(id, side = 1) AS to_id, anyIf(at_ms, side = 1) AS to_ms
				FROM (%s UNION ALL %s)
				GROUP BY account, product_id, environment_id, inc
				HAVING NOT (count() = 2 AND min(h) = max(h))) AS d
			LEFT JOIN (%s) AS p ON p.account = d.account AND p.id = d.product_id
			LEFT JOIN (%s) AS e ON e.account = d.account AND e.id = d.environment_id
			ORDER BY account, product_name, environment_name, product_id, environment_id, inc)`,
		side(0), side(1), named("products", c), named("environments", c))
	p := maps.Clone(t.params)
	p["comparison"] = name
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	if err := m.slow.Exec(ctx, sql, p.args()...); err != nil {
		return 0, classify(ctx, "write the preview", err)
	}
	err = m.ask(ctx, "count the preview", `SELECT count() FROM replay_cells FINAL WHERE comparison = {comparison:String}`,
		params{"comparison": name}, func(rows scanner) error { return rows.Scan(&n) })
	return n, err
}

// named selects what products or environments are called, in either version.
func named(table string, c replay.Comparison) string {
	return fmt.Sprintf(`SELECT account, id, any(name) AS name FROM (
		SELECT account, id, name FROM %[1]s%[2]s%[4]s FINAL UNION ALL SELECT account, id, name FROM %[1]s%[3]s%[4]s FINAL) GROUP BY account, id`,
		table, suffix(c.New), suffix(c.Old), cloneSuffix)
}

// ChangedCells lists the cells of an account that a switch would change, after
// the one with Seq after, in the order of the products' names.
func (m *Model) ChangedCells(ctx context.Context, account, replayID, to string, after uint64, limit int) ([]replay.CellChange, error) {
	var out []replay.CellChange
	err := m.ask(ctx, "list changed cells", `
		SELECT seq, product_name, environment_name, from_version, from_id, from_ms, to_version, to_id, to_ms FROM replay_cells FINAL
		WHERE account = {account:String} AND comparison = {comparison:String} AND seq > {after:UInt64}
		ORDER BY seq LIMIT {limit:UInt64}`,
		params{"account": account, "comparison": comparisonName(replayID, to), "after": after, "limit": limit}, func(rows scanner) error {
			var c replay.CellChange
			var fromID, toID []byte
			var fromMS, toMS int64
			if err := rows.Scan(&c.Seq, &c.ProductName, &c.EnvironmentName, &c.From.Version, &fromID, &fromMS, &c.To.Version, &toID, &toMS); err != nil {
				return err
			}
			fillCell(&c.From, fromID, fromMS)
			fillCell(&c.To, toID, toMS)
			out = append(out, c)
			return nil
		})
	return out, err
}

func fillCell(c *replay.CellContent, id []byte, ms int64) {
	if c.Version != "" {
		c.DeploymentID, c.At = ulid.ULID(id).String(), moment(ms)
	}
}

// OpenSink gives what stores in a version, which EnsureVersion made, and what
// closes it.
func (m *Model) OpenSink(_ context.Context, version uint32) (readmodel.Sink, func() error, error) {
	w := m.Writer(version)
	return w, w.Close, nil
}
