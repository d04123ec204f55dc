package gateway

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keyferry/keyferry/keyops"
	"github.com/keyferry/keyferry/keyops/arn"
)

// retryBusy is when a call that found the server full may come again.
const retryBusy = time.Second

// slots bounds how many calls are in flight over all connections of both listeners, so that
// neither many connections nor one principal with many calls can use up memory. A slot is
// taken at a call's first byte, before its message is read.
type slots struct {
	calls   int // at most
	share   int // of them, of one principal
	streams int // at most of those that stay open, which have places of their own

	mu   sync.Mutex
	open map[bool]int   // guarded by mu; true: of streams that stay
	of   map[string]int // guarded by mu; principals without calls are not in it
}

func newSlots(l Limits) *slots {
	return &slots{calls: l.MaxCalls, share: l.MaxCallsPerPrincipal, streams: l.MaxConnections, open: map[bool]int{}, of: map[string]int{}}
}

// take takes a place, for a stream that stays or for a call.
func (s *slots) take(stays bool) error {
	most := s.calls
	if stays {
		most = s.streams
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[stays] >= most {
		return &refusal{
			code: codes.ResourceExhausted, reason: string(keyops.ErrThrottling), retry: retryBusy, limit: limitServer,
			message: fmt.Sprintf("the Region serves %d calls at once, and as many are in flight", most),
		}
	}
	s.open[stays]++
	return nil
}

func (s *slots) give(stays bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[stays]--
}

// takeShare takes one of a principal's places, and returns how to give it back.
func (s *slots) takeShare(p arn.Principal) (give func(), err error) {
	who := p.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[who] >= s.share {
		return nil, &refusal{
			code: codes.ResourceExhausted, reason: string(keyops.ErrThrottling), retry: retryBusy, limit: limitPrincipal,
			message: fmt.Sprintf("this principal has %d calls in flight, which is its share", s.share),
		}
	}
	s.of[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.of[who]--; s.of[who] == 0 {
			delete(s.of, who)
		}
	}, nil
}
