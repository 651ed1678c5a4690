package credential

import (
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// Why a user cannot be changed (contract 18).
var (
	ErrLastAdmin = fault.New(fault.Conflict, "LAST_ADMIN", "This is the last admin of the account: make somebody else an admin first.")
	ErrOwnRole   = fault.New(fault.Forbidden, "SELF_ROLE_CHANGE", "Nobody changes their own role: another admin can.")
	errNoAdmin   = fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "Only admins change users.")
)

// A UserChange is what was decided about a user: they as they will stand, and
// the type of the event that says so. An empty type says that they stand so
// already.
type UserChange struct {
	Type event.Type
	User User
}

// AssignRole decides whether by may give a user of an account another role.
// Everyone are the account's users as they stand; u is one of them. The
// decision counts only while all of them stand so: each of two admins may
// downgrade the other, but not both.
func (u *User) AssignRole(role string, by *Identity, everyone []HeldUser) (UserChange, error) {
	switch {
	case !isAdmin(by.UserID, everyone): // no longer
		return UserChange{}, errNoAdmin
	case role != RoleAdmin && u.lastAdmin(everyone): // before the next: nobody else is there to downgrade them
		return UserChange{}, ErrLastAdmin
	case u.ID == by.UserID:
		return UserChange{}, ErrOwnRole
	case u.Role == role:
		return UserChange{User: *u}, nil
	}
	next := *u
	next.Role = role
	return UserChange{RoleChanged, next}, nil
}

// Remove decides whether by may remove a user. Their tokens and sessions are
// refused from then on; what they did stays.
func (u *User) Remove(by *Identity, everyone []HeldUser) (UserChange, error) {
	switch {
	case !isAdmin(by.UserID, everyone):
		return UserChange{}, errNoAdmin
	case u.lastAdmin(everyone):
		return UserChange{}, ErrLastAdmin
	}
	next := *u
	next.Removed, next.PasswordHash, next.Link = true, "", Link{}
	return UserChange{UserRemoved, next}, nil
}

func isAdmin(id string, everyone []HeldUser) bool {
	for i := range everyone {
		if everyone[i].ID == id {
			return everyone[i].Role == RoleAdmin && !everyone[i].Invited
		}
	}
	return false
}

func (u *User) lastAdmin(everyone []HeldUser) bool {
	if u.Role != RoleAdmin || u.Invited {
		return false
	}
	for i := range everyone {
		if everyone[i].Role == RoleAdmin && !everyone[i].Invited && everyone[i].ID != u.ID {
			return false
		}
	}
	return true
}

// HeldUser is a user in a keyring, and the place of the event that left them so.
type HeldUser struct {
	User

	At event.Offset
}

// User gives the user with an id, of whatever account, who was not removed.
func (k *Keyring) User(id string) (HeldUser, bool) {
	o, ok := k.users[id]
	if !ok || o.user == nil || o.user.Removed {
		return HeldUser{}, false
	}
	return HeldUser{*o.user, o.at}, true
}

// owner gives a user of an account who may act.
func (k *Keyring) owner(id, account string) (*User, bool) {
	o, ok := k.users[id]
	if !ok || o.user == nil || o.user.Removed || o.user.Invited || o.user.Account != account {
		return nil, false
	}
	return o.user, true
}

// Users gives an account's users, in no order, without those who were removed.
func (k *Keyring) Users(account string) []HeldUser {
	return k.usersWhere(func(u *User) bool { return u.Account == account })
}

// UsersByEmail gives those who sign in with an address, of whatever account,
// without those who were removed. Addresses do not differ by case alone.
func (k *Keyring) UsersByEmail(email string) []HeldUser {
	return k.usersWhere(func(u *User) bool { return sameEmail(u.Email, email) })
}

func sameEmail(a, b string) bool { return strings.EqualFold(a, b) }

func (k *Keyring) usersWhere(wanted func(*User) bool) []HeldUser {
	var out []HeldUser
	for _, o := range k.users {
		if o.user != nil && !o.user.Removed && wanted(o.user) {
			out = append(out, HeldUser{*o.user, o.at})
		}
	}
	return out
}
