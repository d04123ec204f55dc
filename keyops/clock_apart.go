package keyops

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/keyops/region"
)

// MaxApart is the difference between this Region's clock and a peer's at which nothing is
// done that a wrong clock would do too early or too late: destroying what is due, and counting
// approvals, which expire.
const MaxApart = time.Minute

// ErrClocksApart means that this Region's clock and a peer's differ by MaxApart or more.
// Which of them is wrong, neither can know.
var ErrClocksApart = errors.New("the clocks of two Regions are too far apart")

// Clocks is an ability that Peers may have.
type Clocks interface {
	// ClocksApart returns the connected peer whose clock differs most from this Region's, and
	// by how much at least.
	ClocksApart() (region.Name, time.Duration)
}

// clocksAgree returns an error that wraps ErrClocksApart while what depends on the date must
// wait. A peer that is dark shows no clock, and keeps nothing from being done.
func (s *Service) clocksAgree() error {
	clocks, ok := s.peers.(Clocks)
	if !ok {
		return nil
	}
	if peer, apart := clocks.ClocksApart(); apart >= MaxApart {
		return fmt.Errorf("%w: %s differs by %v at least", ErrClocksApart, peer, apart.Round(time.Millisecond))
	}
	return nil
}
