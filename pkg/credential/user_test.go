package credential_test

import (
	"errors"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
)

// errRole stands for the refusal of somebody who is no admin.
var errRole = errors.New("INSUFFICIENT_ROLE")

func TestAnAccountKeepsAnAdminAndNobodyAssignsTheirOwnRole(t *testing.T) {
	user := func(id, role string) credential.HeldUser {
		return credential.HeldUser{User: credential.User{ID: id, Account: "acme", Role: role, PasswordHash: "$"}}
	}
	a, b, c := user("a", credential.RoleAdmin), user("b", credential.RoleAdmin), user("c", credential.RoleQA)
	one, two := []credential.HeldUser{a, c}, []credential.HeldUser{a, b, c}
	for name, q := range map[string]struct {
		of       credential.HeldUser
		role, by string // no role: removal
		everyone []credential.HeldUser
		want     error
	}{
		"an admin gives a role":                    {c, credential.RoleSRE, "a", one, nil},
		"an admin makes an admin":                  {c, credential.RoleAdmin, "a", one, nil},
		"an admin downgrades another":              {b, credential.RoleQA, "a", two, nil},
		"an admin removes another":                 {b, "", "a", two, nil},
		"an admin leaves":                          {a, "", "a", two, nil},
		"the last admin leaves":                    {a, "", "a", one, credential.ErrLastAdmin},
		"the last admin downgrades themself":       {a, credential.RoleQA, "a", one, credential.ErrLastAdmin},
		"the last admin stays what they are":       {a, credential.RoleAdmin, "a", one, credential.ErrOwnRole},
		"one of two downgrades themself":           {a, credential.RoleQA, "a", two, credential.ErrOwnRole},
		"who is no admin any more gives a role":    {a, credential.RoleQA, "c", two, errRole},
		"who is no admin any more removes":         {b, "", "c", two, errRole},
		"who was removed meanwhile gives a role":   {c, credential.RoleSRE, "gone", two, errRole},
		"who was removed meanwhile removes a user": {c, "", "gone", two, errRole},
	} {
		by := &credential.Identity{UserID: q.by, Role: credential.RoleAdmin}
		var change credential.UserChange
		var err error
		if q.role == "" {
			change, err = q.of.Remove(by, q.everyone)
		} else {
			change, err = q.of.AssignRole(q.role, by, q.everyone)
		}
		switch {
		case q.want == errRole: //nolint:errorlint // a mark of the table
			if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != errRole.Error() {
				t.Errorf("%s: %v", name, err)
			}
		case !errors.Is(err, q.want):
			t.Errorf("%s: %v, want %v", name, err, q.want)
		case err == nil && (change.User.Removed != (q.role == "") || q.role != "" && change.User.Role != q.role || change.User.Removed && change.User.PasswordHash != ""):
			t.Errorf("%s: %+v", name, change)
		}
	}
}
