// Command keyferry is the command line of Keyferry, for users and operators. It speaks
// gRPC only and holds no keys.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keyferry/keyferry/cmd/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
