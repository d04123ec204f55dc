// Command keyferry-dev runs a whole multi-Region deployment of Keyferry on one machine, on
// SoftHSM, for development and for the CI of programs that use Keyferry.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "keyferry-dev:", err)
		os.Exit(1)
	}
}
