// Command keyferry-ceremony makes a Region's keys and the transport keys between Regions.
//
// It runs beside the token, never beside clients, in a process of its own for each
// ceremony. See docs/ceremony.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run returns the exit code: 0 done, 1 failed, 2 used wrongly.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ran := false
	if err := newRoot(&ran).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "keyferry-ceremony:", err)
		if !ran {
			return 2
		}
		return 1
	}
	return 0
}
