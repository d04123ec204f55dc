package gateway

import (
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"
)

// serverCredentials authenticates connections of the gRPC server: mutual TLS for those from
// outside, nothing for those that REST made inside the process. The Go type of the
// connection decides, never an address: an address can be spoofed by a misconfigured proxy,
// a type cannot be sent over a wire.
type serverCredentials struct {
	credentials.TransportCredentials
}

// inProcessAuth marks connections on which a forwarded identity is believed.
type inProcessAuth struct{ credentials.CommonAuthInfo }

// AuthType names the kind of authentication.
func (inProcessAuth) AuthType() string { return "in-process" }

func newServerCredentials(c *tls.Config) credentials.TransportCredentials {
	return serverCredentials{credentials.NewTLS(c)}
}

// ServerHandshake authenticates one new connection.
func (c serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if inside, ok := conn.(inProcessConn); ok {
		// It never leaves the process, so nobody else can read or change it.
		private := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
		return inside, inProcessAuth{private}, nil
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// Clone copies the credentials.
func (c serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{c.TransportCredentials.Clone()}
}
