// Package transport names the transport keys of this Region's token and reads the
// transcripts that say which objects they are.
//
// A transport key set belongs to an ordered pair of instances and an epoch: the source
// wraps, the destination unwraps, neither can do the other. It has one key per class of
// material. A ceremony makes the set and leaves a transcript at each end, signed by that
// end's Region signing key; a retirement leaves another. A trusted or wrapping object that
// no transcript names is somebody else's.
//
// A Set does not change after Load and may be used by all at once.
package transport

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/region"
)

// End is one end of a transport key set.
type End struct {
	Region   region.Name
	Instance region.InstanceID
}

// EndOf returns the end that a descriptor describes.
func EndOf(d region.Descriptor) End { return End{Region: d.Region, Instance: d.Instance} }

// String returns REGION@INSTANCE.
func (e End) String() string { return string(e.Region) + "@" + string(e.Instance) }

// Name names a transport key set.
type Name struct {
	Source, Destination End
	Epoch               uint64 // from 1; the newest that both ends hold wraps
}

// String returns SOURCE>DESTINATION#EPOCH, the form used in object labels.
func (n Name) String() string {
	return n.Source.String() + ">" + n.Destination.String() + "#" + strconv.FormatUint(n.Epoch, 10)
}

// Validate reports the first thing wrong with the name.
func (n Name) Validate() error {
	for _, e := range []End{n.Source, n.Destination} {
		if _, err := region.ParseName(string(e.Region)); err != nil {
			return err
		}
		if _, err := region.ParseInstanceID(string(e.Instance)); err != nil {
			return err
		}
	}
	if n.Source.Region == n.Destination.Region || n.Source.Instance == n.Destination.Instance {
		return fmt.Errorf("transport key set %s: source and destination are the same", n)
	}
	if n.Epoch < 1 {
		return fmt.Errorf("transport key set %s: epochs start at 1", n)
	}
	return nil
}

// ParseName reads what String wrote.
func ParseName(s string) (Name, error) {
	ends, epoch, ok := strings.Cut(s, "#")
	src, dst, ok2 := strings.Cut(ends, ">")
	if !ok || !ok2 {
		return Name{}, fmt.Errorf("transport key name %q: want SOURCE>DESTINATION#EPOCH", s)
	}
	var n Name
	for _, e := range []struct {
		text string
		end  *End
	}{{src, &n.Source}, {dst, &n.Destination}} {
		r, i, ok := strings.Cut(e.text, "@")
		if !ok {
			return Name{}, fmt.Errorf("transport key name %q: want REGION@INSTANCE at each end", s)
		}
		*e.end = End{Region: region.Name(r), Instance: region.InstanceID(i)}
	}
	var err error
	if n.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return Name{}, fmt.Errorf("transport key name %q: %w", s, err)
	}
	if err := n.Validate(); err != nil {
		return Name{}, err
	}
	if n.String() != s {
		return Name{}, fmt.Errorf("transport key name %q: not in its one form", s)
	}
	return n, nil
}

// Spec returns what this set's key of one class is in the token that plays role, which is
// hsm.RoleTransportSource or hsm.RoleTransportDestination.
func (n Name) Spec(role hsm.Role, c hsm.Class) hsm.Spec {
	return hsm.Spec{Role: role, Algorithm: hsm.AES256, Class: c, Name: n.String()}
}

// Key is one transport key of this Region's token.
type Key struct {
	Name  Name
	Role  hsm.Role // RoleTransportSource or RoleTransportDestination: which end this token is
	Class hsm.Class
	ID    hsm.ID
}

// Spec returns the spec under which the token holds the key.
func (k Key) Spec() hsm.Spec { return k.Name.Spec(k.Role, k.Class) }
