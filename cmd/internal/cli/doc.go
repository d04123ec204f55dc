// Package cli is the keyferry command: a thin client of the gRPC API.
//
// Data is raw on standard output and words are on standard error, so that commands can be
// piped. It keeps nothing and decides nothing: what a caller may do is the server's answer.
package cli
