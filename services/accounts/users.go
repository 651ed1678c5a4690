package accounts

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// userAnswer is a user as answers show them.
type userAnswer struct {
	ID        string       `json:"id"`
	Email     string       `json:"email"`
	Name      httpapi.Text `json:"name"`
	Role      string       `json:"role"`
	Status    string       `json:"status"` // active, or invited: has not joined
	CreatedAt *time.Time   `json:"created_at"`
}

func userToAPI(u *credential.User) userAnswer {
	status := "active"
	if u.Invited {
		status = "invited"
	}
	return userAnswer{u.ID, u.Email, httpapi.Text(u.Name), u.Role, status, httpapi.Moment(u.CreatedAt)}
}

func (s *Service) listUsers(_ http.ResponseWriter, r *httpapi.Request) error {
	if err := s.fresh(r); err != nil {
		return err
	}
	users, asOf := s.ring.Users(r.Identity.Account)
	users = slices.DeleteFunc(users, func(u credential.HeldUser) bool { return r.After() != "" && u.ID >= r.After() })
	slices.SortFunc(users, func(a, b credential.HeldUser) int { return cmp.Compare(b.ID, a.ID) }) // newest first
	after := ""
	if len(users) > r.Limit() {
		users = users[:r.Limit()]
		after = users[len(users)-1].ID
	}
	items := make([]userAnswer, len(users))
	for i := range users {
		items[i] = userToAPI(&users[i].User)
	}
	at := httpapi.AsOf{Time: httpapi.Moment(asOf.Time)}
	if asOf.Seq > 0 {
		at.Position = position(asOf.Seq)
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

func (s *Service) updateUser(w http.ResponseWriter, r *httpapi.Request) error {
	if _, err := s.findUser(r); err != nil {
		return err
	}
	var asked struct {
		Role string `json:"role"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	user, err := s.changeUser(w, r, func(u *credential.User, everyone []credential.HeldUser, _ time.Time, _ uint64) (credential.UserChange, error) {
		return u.AssignRole(asked.Role, &r.Identity, everyone)
	})
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, userToAPI(&user))
}

func (s *Service) removeUser(w http.ResponseWriter, r *httpapi.Request) error {
	_, err := s.changeUser(w, r, func(u *credential.User, everyone []credential.HeldUser, _ time.Time, _ uint64) (credential.UserChange, error) {
		return u.Remove(&r.Identity, everyone)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// userDecision is about a user, beside everyone of the account, at a time and
// after a sequence of the log.
type userDecision func(u *credential.User, everyone []credential.HeldUser, now time.Time, before uint64) (credential.UserChange, error)

// changeUser changes the user that the path names, and gives them as they then
// stand. What is decided depends on all users of the account, so it counts only
// if the log holds nothing that was not looked at.
func (s *Service) changeUser(w http.ResponseWriter, r *httpapi.Request, decide userDecision) (credential.User, error) {
	var user credential.User
	done, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		held, err := s.findUser(r)
		if err != nil {
			return committed{}, err
		}
		everyone, _ := s.ring.Users(r.Identity.Account)
		change, err := decide(&held.User, everyone, now, before)
		if err != nil {
			return committed{}, err
		}
		user = change.User
		if change.Type == "" {
			return committed{seq: held.At.Seq()}, nil
		}
		seq, err := s.put(ctx, r, fact{recordable: &change.User, is: change.Type, alone: true}, now, before)
		return committed{seq: seq}, err
	})
	if err != nil {
		return user, err
	}
	s.everywhere(w, r, done.seq)
	return user, nil
}

// findUser gives the user that the path names.
func (s *Service) findUser(r *httpapi.Request) (credential.HeldUser, error) {
	held, ok := s.ring.User(r.PathValue("id"))
	switch {
	case !ok:
		return held, httpapi.NotFound("user")
	case held.Account != r.Identity.Account:
		return held, httpapi.NotOwner("user")
	}
	return held, nil
}
