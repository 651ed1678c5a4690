package accounts

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// errOperator refuses whoever does not run the server.
var errOperator = fault.New(fault.Forbidden, "INSUFFICIENT_ROLE", "Only admins of the first account manage accounts.")

var errNameInUse = fault.New(fault.Conflict, "NAME_IN_USE", "An account of this name exists.")

type accountAnswer struct {
	Account   string     `json:"account"`
	Name      string     `json:"name"`
	CreatedAt *time.Time `json:"created_at"`
}

// operator refuses everybody but the admins of the first account.
func (s *Service) operator(r *httpapi.Request) error {
	if id, ok := s.ring.Operator(); !ok || id != r.Identity.Account {
		return errOperator
	}
	return nil
}

func (s *Service) listAccounts(_ http.ResponseWriter, r *httpapi.Request) error {
	if err := s.operator(r); err != nil {
		return err
	}
	if err := s.fresh(r); err != nil {
		return err
	}
	all, asOf := s.ring.Accounts()
	all = slices.DeleteFunc(all, func(a credential.HeldAccount) bool { return r.After() != "" && a.ID <= r.After() })
	slices.SortFunc(all, func(a, b credential.HeldAccount) int { return cmp.Compare(a.ID, b.ID) })
	after := ""
	if len(all) > r.Limit() {
		all = all[:r.Limit()]
		after = all[len(all)-1].ID
	}
	items := make([]accountAnswer, len(all))
	for i := range all {
		items[i] = accountAnswer{all[i].ID, all[i].Name, httpapi.Moment(all[i].CreatedAt)}
	}
	at := httpapi.AsOf{Time: httpapi.Moment(asOf.Time)}
	if asOf.Seq > 0 {
		at.Position = position(asOf.Seq)
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

// createAccount makes an account, its first admin and three credentials, as the
// first start does for the first. An account that has no user was begun and not
// finished: it is made anew.
func (s *Service) createAccount(w http.ResponseWriter, r *httpapi.Request) error {
	if err := s.operator(r); err != nil {
		return err
	}
	var asked struct {
		Account    string `json:"account"`
		Name       string `json:"name"`
		AdminEmail string `json:"admin_email"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	p, err := newPlan(BootstrapConfig{
		Account: asked.Account, name: said(asked.Name), AdminEmail: strings.TrimSpace(asked.AdminEmail), URL: r.Base(), author: r.Identity.Author(),
	}, s.peppers, s.now(), s.entropy)
	if err != nil {
		return err
	}
	done, err := s.inTurn(r.Context(), func(ctx context.Context, _ time.Time, before uint64) (committed, error) {
		var after uint64
		if held, ok := s.ring.Account(asked.Account); ok {
			if users, _ := s.ring.Users(asked.Account); len(users) > 0 {
				return committed{}, errNameInUse
			}
			after = held.At.Seq()
		}
		if err := r.Reverify(); err != nil {
			return committed{}, err
		}
		var seq uint64
		for i, f := range p.Frames {
			if i > 0 {
				after = 0
			}
			var err error
			if seq, err = s.store(ctx, s.log.AppendToSubject, f, after, before); err != nil {
				if i == 0 && errors.Is(err, eventlog.ErrConflict) {
					return committed{}, err // somebody else was first: look again
				}
				return committed{}, unavailable(err)
			}
		}
		return committed{seq: seq}, nil
	})
	if err != nil {
		return err
	}
	secretAnswer(w, done.seq)
	return r.JSON(http.StatusCreated, p.Credentials)
}
