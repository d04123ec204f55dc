// Package integration holds tests of the programs as processes. See README.md.
package integration
