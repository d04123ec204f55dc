// Package arn names keys, aliases, accounts and principals (DESIGN section 3).
//
// Every parser is strict: what it accepts prints back to the same text, so that names can
// be compared as strings and bound into ciphertexts.
package arn

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/keyferry/keyferry/keyops/region"
)

// ErrInvalid is wrapped by every parsing error.
var ErrInvalid = errors.New("invalid name")

// Account is a twelve-digit account number.
type Account string

var (
	accountPattern   = regexp.MustCompile(`^[0-9]{12}$`)
	partitionPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	singlePattern    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	multiPattern     = regexp.MustCompile(`^mrk-[0-9a-f]{32}$`)
	aliasPattern     = regexp.MustCompile(`^alias/[a-zA-Z0-9:/_-]{1,250}$`)
	principalPattern = regexp.MustCompile(`^(root|(user|role)/[A-Za-z0-9+=,.@_/-]{1,128})$`)
)

func invalid(what, s, want string) error {
	return fmt.Errorf("%w: %s %q: want %s", ErrInvalid, what, clip(s), want)
}

// clip keeps hostile input from filling logs and errors.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// ParseAccount checks an account number.
func ParseAccount(s string) (Account, error) {
	if !accountPattern.MatchString(s) {
		return "", invalid("account", s, "twelve digits")
	}
	return Account(s), nil
}

// ParsePartition checks a partition name, such as aws.
func ParsePartition(s string) (string, error) {
	if !partitionPattern.MatchString(s) {
		return "", invalid("partition", s, "a lower-case word such as aws")
	}
	return s, nil
}

// KeyID is a key's identity: a dashed UUID for a single-Region key, mrk- and 32
// hexadecimal digits for a multi-Region key. It is never reused.
type KeyID string

// NewKeyID returns a fresh random key ID.
func NewKeyID(multiRegion bool) KeyID {
	if !multiRegion {
		return KeyID(uuid.NewString())
	}
	var b [16]byte
	rand.Read(b[:])
	return KeyID("mrk-" + hex.EncodeToString(b[:]))
}

// ParseKeyID checks a bare key ID.
func ParseKeyID(s string) (KeyID, error) {
	if singlePattern.MatchString(s) || multiPattern.MatchString(s) {
		return KeyID(s), nil
	}
	return "", invalid("key ID", s, "a dashed UUID, or mrk- and 32 hexadecimal digits")
}

// MultiRegion reports whether the ID is that of a multi-Region key.
func (id KeyID) MultiRegion() bool { return strings.HasPrefix(string(id), "mrk-") }

// KeyIDFromBytes is the inverse of Bytes and MultiRegion.
func KeyIDFromBytes(b [16]byte, multiRegion bool) KeyID {
	if multiRegion {
		return KeyID("mrk-" + hex.EncodeToString(b[:]))
	}
	return KeyID(uuid.UUID(b).String())
}

// Bytes returns the sixteen bytes that a ciphertext header carries.
func (id KeyID) Bytes() [16]byte {
	var out [16]byte
	b, _ := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(string(id), "mrk-"), "-", ""))
	copy(out[:], b)
	return out
}

// Key is the ARN of a key.
type Key struct {
	Partition string
	Region    region.Name
	Account   Account
	ID        KeyID
}

// String returns arn:<partition>:kms:<region>:<account>:key/<key ID>.
func (k Key) String() string {
	return fmt.Sprintf("arn:%s:kms:%s:%s:key/%s", k.Partition, k.Region, k.Account, k.ID)
}

// Alias is the ARN of an alias; Name includes the prefix alias/.
type Alias struct {
	Partition string
	Region    region.Name
	Account   Account
	Name      string
}

// String returns arn:<partition>:kms:<region>:<account>:alias/<name>.
func (a Alias) String() string {
	return fmt.Sprintf("arn:%s:kms:%s:%s:%s", a.Partition, a.Region, a.Account, a.Name)
}

// ParseAliasName checks an alias name such as alias/payroll: at most 256 characters of
// letters, digits, colon, slash, underscore and hyphen. alias/aws/ is reserved.
func ParseAliasName(s string) (string, error) {
	if !aliasPattern.MatchString(s) {
		return "", invalid("alias name", s, "alias/ and 1 to 250 letters, digits, or : / _ -")
	}
	if strings.HasPrefix(s, "alias/aws/") {
		return "", invalid("alias name", s, "a name outside alias/aws/, which is reserved")
	}
	return s, nil
}

// Resource is a parsed KMS ARN: exactly one of Key and Alias is set.
type Resource struct {
	Key   *Key
	Alias *Alias
}

// ParseResource reads the ARN of a key or an alias.
func ParseResource(s string) (Resource, error) {
	const want = "arn:<partition>:kms:<region>:<account>:key/<key ID> or ...:alias/<name>"
	f := strings.SplitN(s, ":", 6)
	if len(s) > 2048 || len(f) != 6 || f[0] != "arn" || f[2] != "kms" {
		return Resource{}, invalid("ARN", s, want)
	}
	partition, err := ParsePartition(f[1])
	if err != nil {
		return Resource{}, invalid("ARN", s, want)
	}
	reg, err := region.ParseName(f[3])
	if err != nil {
		return Resource{}, invalid("ARN", s, want)
	}
	account, err := ParseAccount(f[4])
	if err != nil {
		return Resource{}, invalid("ARN", s, want)
	}
	if id, ok := strings.CutPrefix(f[5], "key/"); ok {
		keyID, err := ParseKeyID(id)
		if err != nil {
			return Resource{}, err
		}
		return Resource{Key: &Key{partition, reg, account, keyID}}, nil
	}
	name, err := ParseAliasName(f[5])
	if err != nil {
		return Resource{}, err
	}
	return Resource{Alias: &Alias{partition, reg, account, name}}, nil
}

// Principal is who calls: arn:<partition>:iam::<account>:root, :user/<name> or :role/<name>.
type Principal struct {
	Partition string
	Account   Account
	Name      string // root, user/<name> or role/<name>
}

// String returns the principal's ARN.
func (p Principal) String() string {
	return fmt.Sprintf("arn:%s:iam::%s:%s", p.Partition, p.Account, p.Name)
}

// ParsePrincipal reads a principal's ARN.
func ParsePrincipal(s string) (Principal, error) {
	const want = "arn:<partition>:iam::<account>:user/<name>, :role/<name> or :root"
	f := strings.SplitN(s, ":", 6)
	if len(s) > 512 || len(f) != 6 || f[0] != "arn" || f[2] != "iam" || f[3] != "" || !principalPattern.MatchString(f[5]) {
		return Principal{}, invalid("principal", s, want)
	}
	partition, err := ParsePartition(f[1])
	if err != nil {
		return Principal{}, invalid("principal", s, want)
	}
	account, err := ParseAccount(f[4])
	if err != nil {
		return Principal{}, invalid("principal", s, want)
	}
	return Principal{partition, account, f[5]}, nil
}
