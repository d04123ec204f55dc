package cli

import (
	"context"
	"fmt"
	"time"
)

// poll is how often --wait asks for progress.
const poll = 100 * time.Millisecond

// follow asks how far something is and prints each change, until it is done. What is not done
// when the time is up goes on without the caller, who is told with what command to look.
func (a *app) follow(ctx context.Context, subject, look string, ask func() (now string, done bool, err error)) error {
	last, start := "", time.Now()
	for {
		now, done, err := ask()
		switch {
		case err != nil && (ctx.Err() == nil || last == ""):
			return err
		case err != nil:
			done = false
		case now != last:
			a.say("%s: %s (after %s)", subject, now, time.Since(start).Round(time.Millisecond))
			last = now
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still %s; it goes on by itself, see keyferry %s", subject, dash(last), look)
		case <-time.After(poll):
		}
	}
}
