// Package gateway is how clients reach a Region: gRPC, REST, and who is calling.
//
// It authenticates every connection, names the caller as a principal, converts requests to
// the terms of package keyops and errors back to gRPC and HTTP. It decides nothing about
// keys: authorisation and audit happen inside keyops, and no handler has another door.
//
// Trust: everything that a client sends is hostile, a verified certificate or bearer token
// included, until a configured rule names its principal. The files that say who may call are
// the operator's; they are read again when they change (package reload). REST is a client of the gRPC server over a listener
// inside the process; only on those connections, told apart by Go type, is an identity that
// REST forwards believed (credentials.go, identity.go). Every RPC has a row in the table of
// methods.go; one without a row is refused.
//
// Concurrency: a Server serves any number of calls at once. The gateway holds no state but
// connections, what each caller has left of its rates (throttle.go) and the result of the
// last health check, and makes nothing durable.
package gateway
