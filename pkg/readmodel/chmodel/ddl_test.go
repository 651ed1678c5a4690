package chmodel_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

// A replay of replicated tables could not be compared in the end, so that it is refused
// at its beginning, without a server being asked.
func TestReplicatedTablesAreNotRebuiltBesideThemselves(t *testing.T) {
	t.Parallel()
	m, err := chmodel.Open(t.Context(), chmodel.Config{Cluster: "main", Addr: []string{"127.0.0.1:1"}}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for what, err := range map[string]error{"fill": m.DeferMerges(t.Context(), 2), "clone": m.Clone(t.Context(), 2)} {
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Kind != fault.Precondition || f.Code != "REPLAY_UNSUPPORTED" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// No second ClickHouse runs here, so that replicated tables are not made; but a real
// parser reads every statement, in both families of engines.
func TestDDLOfBothFamiliesIsWhatClickHouseReads(t *testing.T) {
	t.Parallel()
	srv := chservertest.Start(t)
	conn := connect(t, srv, "default")
	single, err := chmodel.DDL("", 7)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := chmodel.DDL("main", 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(single) != len(cluster) || len(single) < 10 {
		t.Fatalf("%d statements for one server, %d for a cluster", len(single), len(cluster))
	}
	for i := range single {
		for _, c := range []struct {
			statement  string
			replicated bool
		}{{single[i], false}, {cluster[i], true}} {
			var formatted string
			if err := conn.QueryRow(t.Context(), "SELECT formatQuerySingleLine(?)", c.statement).Scan(&formatted); err != nil {
				t.Errorf("%v\n%s", err, c.statement)
				continue
			}
			rows, err := conn.Query(t.Context(), "EXPLAIN AST "+c.statement)
			if err != nil {
				t.Errorf("%v\n%s", err, c.statement)
				continue
			}
			nodes := 0
			for rows.Next() {
				nodes++
			}
			if err := rows.Close(); err != nil || nodes < 2 {
				t.Errorf("it is read as %d nodes: %v\n%s", nodes, err, c.statement)
			}
			if got := strings.Contains(formatted, "ON CLUSTER main"); got != c.replicated {
				t.Errorf("it runs on the cluster: %v\n%s", got, formatted)
			}
			table := strings.Contains(formatted, "CREATE TABLE")
			if got := strings.Contains(formatted, "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}'"); table && got != c.replicated {
				t.Errorf("its table is replicated: %v\n%s", got, formatted)
			}
			if got := strings.Contains(formatted, " replicated_deduplication_window = 1000"); table && got != c.replicated {
				t.Errorf("its window is that of replicated tables: %v\n%s", got, formatted)
			}
		}
	}
}
