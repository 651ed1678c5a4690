package credential_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Rows: VF-03, VF-29
func TestScopesAskedForBecomeCanonicalOnes(t *testing.T) {
	for _, c := range []struct {
		kind  credential.Kind
		asked []string
		want  []string
	}{
		{credential.APIKey, nil, []string{"events:write"}},
		{credential.PAT, nil, []string{"read"}},
		{credential.APIKey, []string{"read"}, []string{"read"}},
		{credential.PAT, []string{"read-only"}, []string{"read"}},
		{credential.APIKey, []string{"events:write"}, []string{"events:write"}},
		{credential.PAT, []string{"events:write"}, []string{"read", "events:write"}},
		{credential.APIKey, []string{"sync-trigger"}, []string{"read", "events:write"}},
		{credential.PAT, []string{"sync-trigger"}, []string{"read", "events:write"}},
		{credential.APIKey, []string{"read", "events:write"}, []string{"read", "events:write"}},
		{credential.APIKey, []string{"write"}, []string{"write"}},
		{credential.PAT, []string{"read", "write"}, []string{"write"}},
		{credential.PAT, []string{"admin"}, []string{"admin"}},
	} {
		got, err := credential.ParseScopes(c.kind, c.asked)
		if err != nil {
			t.Errorf("%s %v: %v", c.kind, c.asked, err)
		}
		if diff := cmp.Diff(c.want, got.Names()); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", c.kind, c.asked, diff)
		}
	}
}

// Rows: VF-03
func TestUnknownScopesAreRefused(t *testing.T) {
	for _, name := range []string{"", "Read", "events", "write ", "read write", "*", "billing"} {
		if got, err := credential.ParseScopes(credential.PAT, []string{"read", name}); fault.KindOf(err) != fault.Unprocessable || got != 0 {
			t.Errorf("scope %q: %v, %v", name, got, err)
		}
	}
}

func TestAdminIncludesWriteIncludesTheRest(t *testing.T) {
	all := []credential.Scopes{credential.Read, credential.EventsWrite, credential.Write, credential.Admin}
	for name, want := range map[string][]bool{
		"read": {true, false, false, false}, "events:write": {false, true, false, false}, "sync-trigger": {true, true, false, false},
		"write": {true, true, true, false}, "admin": {true, true, true, true},
	} {
		s, err := credential.ParseScopes(credential.APIKey, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		for i, scope := range all {
			if s.Has(scope) != want[i] {
				t.Errorf("%s has scope %d: %v, want %v", name, scope, s.Has(scope), want[i])
			}
		}
	}
}

func TestNoRoleMayMoreThanItsCapabilities(t *testing.T) {
	const r, e, w, a = credential.Read, credential.EventsWrite, credential.Write, credential.Admin
	for role, want := range map[string]credential.Scopes{
		"admin": r | e | w | a, "release_manager": r | e | w, "developer": r | e | w, "sre": r | e | w,
		"product": r | w, "qa": r | w, "security": r | w, "compliance": r | w,
		"billing": r, "viewer": r, "": 0, "Admin": 0, "owner": 0,
	} {
		if got := credential.RoleScopes(role); got != want {
			t.Errorf("role %q may %04b, want %04b", role, got, want)
		}
	}
}
