package credential

import "github.com/shipledger/shipledger/pkg/event"

// HeldAccount is an account in a keyring, and the place of the event that left
// it so.
type HeldAccount struct {
	Account

	At event.Offset
}

type accountEntry struct {
	at, first event.Offset // of its latest event and of its first
	account   *Account
}

func (k *Keyring) applyAccount(a *Account, at event.Offset) {
	held, ok := k.accounts[a.ID]
	switch {
	case !ok:
		k.accounts[a.ID] = &accountEntry{at, at, a}
	case held.at < at:
		k.accounts[a.ID] = &accountEntry{at, held.first, a}
	case at < held.first:
		held.first = at
	}
}

// Account gives an account by its slug.
func (k *Keyring) Account(id string) (HeldAccount, bool) {
	e, ok := k.accounts[id]
	if !ok {
		return HeldAccount{}, false
	}
	return HeldAccount{*e.account, e.at}, true
}

// Accounts gives all accounts, in no order.
func (k *Keyring) Accounts() []HeldAccount {
	out := make([]HeldAccount, 0, len(k.accounts))
	for _, e := range k.accounts {
		out = append(out, HeldAccount{*e.account, e.at})
	}
	return out
}

// Operator gives the account that was made first: its admins run the server.
// There is none while the log holds no account.
func (k *Keyring) Operator() (id string, ok bool) {
	var first *accountEntry
	for _, e := range k.accounts {
		if first == nil || e.first < first.first {
			first = e
		}
	}
	if first == nil {
		return "", false
	}
	return first.account.ID, true
}
