// Package dev runs a whole multi-Region deployment on one machine: tokens of SoftHSM, the
// real ceremonies as processes of their own, certificates of an authority made for it, and
// one keyferryd per Region, all on loopback and in one directory.
//
// It is for development, for demonstrations and for the CI of programs that use Keyferry.
// Its keys are worth nothing: the PINs lie beside the tokens.
//
// Every step of [Deployment.Up] looks at its own result to see whether it is done, so that
// an interrupted run is continued by running it again. Files appear complete or not at all.
// One process at a time changes a deployment; a lock file says so. Daemons are known by
// process ID and start time, so that nothing else is ever signalled.
package dev
