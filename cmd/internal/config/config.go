// Package config reads the configuration of keyferryd.
//
// One YAML file configures one daemon. [Config] is its reference; docs/configuration.md is
// the same list in prose, compared with the struct by a test. Secrets are never in the file
// or in the environment: it names files that hold them. Relative paths are relative to the
// directory of the configuration file, so that a deployment can be moved as a whole.
//
// A field that a newer version adds has a default, so that an old file keeps working; a
// field that this version does not know is refused, so that a misspelt limit is no limit
// that silently is not there.
package config

import (
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement/approval"
)

// Config is the configuration of one daemon, which serves one Region.
type Config struct {
	// Region is the name of the Region that this daemon serves, such as eu-paris-1.
	Region region.Name `yaml:"region"`
	// Partition is the partition in ARNs. Default aws, because AWS clients refuse others.
	Partition string `yaml:"partition,omitempty"`
	// Accounts lists the accounts served, twelve digits each, at least one.
	Accounts []arn.Account `yaml:"accounts"`
	// RegionDir is the directory that keyferry-ceremony keeps: descriptor, peers, transcripts.
	RegionDir string `yaml:"region_dir"`
	// Token says which PKCS#11 token holds the keys.
	Token Token `yaml:"token"`
	// Store says where the sealed metadata is.
	Store Store `yaml:"store"`
	// Audit says where the audit log is.
	Audit Audit `yaml:"audit"`
	// Clients says where and how users and programs connect.
	Clients Clients `yaml:"clients"`
	// IdentityPolicies is the file of identity policies, in the AWS grammar. Default: none, so
	// that only key policies allow.
	IdentityPolicies string `yaml:"identity_policies,omitempty"`
	// Peers says how the other Regions are reached. Default: a deployment in one Region.
	Peers Peers `yaml:"peers,omitempty"`
	// Quorum says what takes operators' approvals.
	Quorum Quorum `yaml:"quorum,omitempty"`
	// Limits bounds what clients can take.
	Limits Limits `yaml:"limits,omitempty"`
	// Metrics says where measurements are shown.
	Metrics Metrics `yaml:"metrics,omitempty"`
	// Log says what is written to standard error.
	Log Log `yaml:"log,omitempty"`
	// DrainTimeout bounds how long a stop waits for calls in flight. Default 20s.
	DrainTimeout time.Duration `yaml:"drain_timeout,omitempty"`
}

// Token names a PKCS#11 token and how it is used.
type Token struct {
	// Module is the path of the PKCS#11 library.
	Module string `yaml:"module"`
	// Label is the token's label. Exactly one of label and serial is given.
	Label string `yaml:"label,omitempty"`
	// Serial is the token's serial number.
	Serial string `yaml:"serial,omitempty"`
	// PINFile is a file with the user PIN, readable by the daemon's user alone.
	PINFile string `yaml:"pin_file"`
	// PINGroupReadable permits the PIN file to be readable by its group. Default false.
	PINGroupReadable bool `yaml:"pin_group_readable,omitempty"`
	// Profile is a built-in profile (softhsm2, generic, luna7) or a profile file's path, which
	// contains a slash.
	Profile string `yaml:"profile"`
	// Sessions is the number of sessions kept open, 1 to 1024. Default 0: the profile's.
	Sessions int `yaml:"sessions,omitempty"`
	// RequireBoundary is the replication boundary without which the daemon refuses to start:
	// token, api-only or none. Default token, so that a software token is always a decision.
	RequireBoundary string `yaml:"require_boundary,omitempty"`
}

// Store places the metadata.
type Store struct {
	// Path is the SQLite file, made if it is missing, on a local disk.
	Path string `yaml:"path"`
}

// Audit places the audit log.
type Audit struct {
	// Dir is the directory of the audit files, made if it is missing.
	Dir string `yaml:"dir"`
	// FlushInterval bounds what a crash can take from the log of cryptographic calls; with 0s
	// each is on disk before it is answered. Management calls always are. Default 1s.
	FlushInterval time.Duration `yaml:"flush_interval,omitempty"`
}

// Clients configures the listeners for users and programs.
type Clients struct {
	// GRPC is the address of the gRPC listener, host:port.
	GRPC string `yaml:"grpc"`
	// REST is the address of the REST listener. Default: none.
	REST string `yaml:"rest,omitempty"`
	// CertificateFile is the server's certificate chain, PEM, used by both listeners.
	CertificateFile string `yaml:"certificate_file"`
	// KeyFile is the private key of the certificate, PEM, not readable by others.
	KeyFile string `yaml:"key_file"`
	// CAFile holds the authorities of client certificates, PEM.
	CAFile string `yaml:"ca_file"`
	// CRLFiles are revocation lists of these authorities, PEM or DER. Default: none, so that
	// certificates are taken until they expire.
	CRLFiles []string `yaml:"crl_files,omitempty"`
	// CRLGrace is how long a list whose next update is overdue still counts; later, no
	// certificate of its authority is taken. Default 0s.
	CRLGrace time.Duration `yaml:"crl_grace,omitempty"`
	// Principals maps client certificates to principals. The first rule that matches decides;
	// a certificate that none matches is refused.
	Principals []PrincipalRule `yaml:"principals"`
	// Bearer says whose bearer tokens are taken instead of a certificate. Default: nobody's.
	Bearer Bearer `yaml:"bearer,omitempty"`
}

// Bearer says whose JSON Web Tokens are taken.
type Bearer struct {
	// Issuer is what a token's iss must be, to the letter.
	Issuer string `yaml:"issuer"`
	// Audience is what must be among a token's aud.
	Audience string `yaml:"audience"`
	// KeysFile is the issuer's JWK set. Exactly one of keys_file and keys_url is given.
	KeysFile string `yaml:"keys_file,omitempty"`
	// KeysURL is where the issuer publishes its JWK set, https.
	KeysURL string `yaml:"keys_url,omitempty"`
	// KeysCAFile holds the authorities of the URL's server, PEM. Default: the system's.
	KeysCAFile string `yaml:"keys_ca_file,omitempty"`
	// Algorithms are those taken. Default: RS, PS (256, 384, 512), ES (256, 384) and EdDSA.
	Algorithms []string `yaml:"algorithms,omitempty"`
	// ClockSkew is how far the issuer's clock may be from this one, at most 5m. Default 60s.
	ClockSkew time.Duration `yaml:"clock_skew,omitempty"`
	// Principals maps tokens to principals. The first rule that matches decides; a token that
	// none matches is refused.
	Principals []ClaimRule `yaml:"principals"`
}

// ClaimRule maps bearer tokens to one principal, or to one principal each.
type ClaimRule struct {
	// Claim is the name of a claim at the top of the token, such as sub.
	Claim string `yaml:"claim"`
	// Pattern is a pattern for the claim's text. One * stands for a name, as for certificates.
	// A claim that is a list matches if the pattern has no * and is in the list.
	Pattern string `yaml:"pattern"`
	// Principal is the principal's ARN; a * in it is what * stood for in the pattern.
	Principal string `yaml:"principal"`
}

// PrincipalRule maps client certificates to one principal, or to one principal each.
type PrincipalRule struct {
	// SPIFFE is a pattern for the certificate's URI name, such as spiffe://example.org/user/*.
	// Exactly one of spiffe and common_name is given. One * stands for a name: letters, digits
	// and +=,.@_- only. It fits only a certificate that has exactly one URI name.
	SPIFFE string `yaml:"spiffe,omitempty"`
	// CommonName is a pattern for the certificate's common name, such as *.ci.example.org.
	CommonName string `yaml:"common_name,omitempty"`
	// OrganizationalUnit, together with common_name, must be among the certificate's units.
	OrganizationalUnit string `yaml:"organizational_unit,omitempty"`
	// Principal is the principal's ARN; a * in it is what * stood for in the pattern.
	Principal string `yaml:"principal"`
}

// Quorum says which operations take the approvals of operators beside a caller's permission.
type Quorum struct {
	// Operations lists them: delete-primary-key, disassociate-replica, evict-replica,
	// suspend-region, write-off-material. Forced promotions, ceremony offers, sealing a store
	// anew and changes of the roster take approvals whatever the list says. Default: all five.
	Operations []approval.Operation `yaml:"operations,omitempty"`
}

// Limits bounds what clients can take.
type Limits struct {
	// Keys is the key quota of each account, 1 to 10000000. Default 100000.
	Keys int `yaml:"keys,omitempty"`
	// KeysPerPrincipal is how many keys that exist one principal may have made, 0 to 10000000.
	// Default 0: as many as its account may have.
	KeysPerPrincipal int `yaml:"keys_per_principal,omitempty"`
	// UnboundedEncryption lets the current material of a symmetric key encrypt more than 2^32
	// times. Random IVs are then no longer safely distinct. Default false: it refuses.
	UnboundedEncryption bool `yaml:"unbounded_encryption,omitempty"`
	// Connections is the number of client connections, 1 to 100000. Default 1000.
	Connections int `yaml:"connections,omitempty"`
	// ConnectionsPerAddress is how many of them one address has, 1 to 100000. Default: half.
	ConnectionsPerAddress int `yaml:"connections_per_address,omitempty"`
	// Streams is the number of calls in flight on one connection, 1 to 10000. Default 100.
	Streams int `yaml:"streams,omitempty"`
	// Calls is the number of calls in flight on all connections together, 1 to 100000. Default
	// 2000.
	Calls int `yaml:"calls,omitempty"`
	// CallsPerPrincipal is how many of them one principal has, 1 to 100000. Default: half.
	CallsPerPrincipal int `yaml:"calls_per_principal,omitempty"`
	// Rates bounds how often calls are served.
	Rates Rates `yaml:"rates,omitempty"`
}

// Metrics says where measurements are shown, for Prometheus.
type Metrics struct {
	// Listen is the address, host:port. A reader needs no certificate, so anything but a
	// loopback address takes remote. Default: none, so that nothing is shown.
	Listen string `yaml:"listen,omitempty"`
	// Remote permits an address that other machines reach. Default false.
	Remote bool `yaml:"remote,omitempty"`
}

// Rates bounds how often calls are served, by their class; docs/reference/rest.md says which
// call is of which.
type Rates struct {
	// Crypto is for use of keys. Default 20000 calls per second of an account, 10000 of a
	// principal.
	Crypto Rate `yaml:"crypto,omitempty"`
	// Read is for questions. Default 2000 and 1000.
	Read Rate `yaml:"read,omitempty"`
	// Manage is for what changes keys and aliases. Default 200 and 100.
	Manage Rate `yaml:"manage,omitempty"`
}

// Rate is a number of calls per second, 1 to 1000000. As many may come at once.
type Rate struct {
	// Account is for all principals of one account together.
	Account int `yaml:"account,omitempty"`
	// Principal is for one principal.
	Principal int `yaml:"principal,omitempty"`
}

// Log configures the daemon's log.
type Log struct {
	// Level is debug, info, warning or error. Default info.
	Level string `yaml:"level,omitempty"`
	// Format is json or text. Default json.
	Format string `yaml:"format,omitempty"`
}
