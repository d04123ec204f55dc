package policy

// query is a request, taken apart.
type query struct {
	action     int
	who        principal
	what       resource
	encryption map[string]string
	context    map[string][]string
}

func newQuery(req Request) (q query, ok bool) {
	if q.action, ok = actionIndex[req.Action]; !ok {
		return q, false
	}
	if q.who, ok = parsePrincipal(req.Principal); !ok {
		return q, false
	}
	if q.what, ok = parseResource(req.Resource); !ok {
		return q, false
	}
	q.encryption, q.context = req.EncryptionContext, req.Context
	return q, actions[q.action].on&q.what.kind != 0
}

// findings are the first statements of each kind that match.
type findings struct {
	deny    *statement
	named   *statement // allows the principal itself
	account *statement // allows the principal's account
}

func (f *findings) scan(q *query, p *Policy) {
	for _, s := range p.statements {
		if !s.actions.has(q.action) {
			continue
		}
		how := s.reach(q, p.kind)
		if how == notReached || !s.covers(&q.what) || !s.holds(q) {
			continue
		}
		switch {
		case s.deny:
			f.deny = first(f.deny, s)
		case how == byName:
			f.named = first(f.named, s)
		default:
			f.account = first(f.account, s)
		}
	}
}

func first(have, s *statement) *statement {
	if have != nil {
		return have
	}
	return s
}

// reach says how the statement reaches the caller. Policies of the caller's own reach it
// without saying so.
func (s *statement) reach(q *query, kind Kind) reach {
	switch {
	case kind != KeyPolicy:
		return byName
	case !s.notWho:
		return s.who.reach(&q.who)
	case s.who.spares(&q.who):
		return notReached
	}
	return byName
}

func (s *statement) covers(what *resource) bool {
	for i := range s.resources {
		if s.resources[i].match(what) {
			return !s.notResource
		}
	}
	return s.notResource
}

func (s *statement) holds(q *query) bool {
	for i := range s.conditions {
		if !s.conditions[i].holds(q, s.deny) {
			return false
		}
	}
	return true
}
