package approval

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/wire"
)

// MaxOperators bounds a roster.
const MaxOperators = 32

// Roster says whose approvals count in a Region and how many different operators must give one.
type Roster struct {
	Version   uint64 // 0 for the one that a Region's descriptor names, one more with each change
	Threshold int    // more than half of the operators
	Operators []Operator
}

// Operator is a person who approves.
type Operator struct {
	Name string // 1 to 64 bytes, unique in its roster
	Key  []byte // SPKI, DER: ECDSA P-256 or P-384, or Ed25519; unique in its roster
}

// Validate reports the first thing wrong with the roster.
func (r Roster) Validate() error {
	if 2*r.Threshold <= len(r.Operators) || r.Threshold > len(r.Operators) || len(r.Operators) > MaxOperators {
		return fmt.Errorf("roster: threshold %d of %d operators, want more than half of them, and at most %d operators",
			r.Threshold, len(r.Operators), MaxOperators)
	}
	seen := map[string]string{} // names and fingerprints; neither can look like the other's
	for _, o := range r.Operators {
		// Names are printed above the fingerprints that people compare.
		if err := readable(o.Name, 1, maxName); err != nil {
			return fmt.Errorf("roster: an operator's name is a %w", err)
		}
		pub, err := x509.ParsePKIXPublicKey(o.Key)
		if err != nil {
			return fmt.Errorf("roster: key of operator %q: %w", o.Name, err)
		}
		if err := statement.CheckKey(pub); err != nil {
			return fmt.Errorf("roster: key of operator %q: %w", o.Name, err)
		}
		// A key has one encoding here: DER can pad the bit string of a point in several ways.
		if der, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(der, o.Key) {
			return fmt.Errorf("roster: key of operator %q is not in its one encoding", o.Name)
		}
		// One person under two names, or two under one, would break the count.
		for _, k := range []string{"name " + o.Name, "key " + string(o.Key)} {
			if other, ok := seen[k]; ok {
				return fmt.Errorf("roster: operators %q and %q have the same name or key", other, o.Name)
			}
			seen[k] = o.Name
		}
	}
	return nil
}

func (r Roster) encode() []byte {
	var w wire.Writer
	r.Append(&w)
	return w.Out()
}

// Append writes the roster's fields to w.
func (r Roster) Append(w *wire.Writer) {
	w.Uint(r.Version)
	w.Uint(uint64(r.Threshold))
	w.Count(len(r.Operators))
	for _, o := range r.Operators {
		w.String(o.Name)
		w.Bytes(o.Key)
	}
}

// Take reads what Append wrote; what is wrong is recorded in d.
func Take(d *wire.Reader) Roster {
	r := Roster{Version: d.Uint(), Threshold: d.Count(MaxOperators)}
	for range d.Count(MaxOperators) {
		r.Operators = append(r.Operators, Operator{Name: d.String(64), Key: d.Bytes(512)})
	}
	if d.Err() == nil {
		if err := r.Validate(); err != nil {
			d.Fail("%v", err)
		}
	}
	return r
}

// LoadRoster reads operators.yaml, the form in which a Region's people write a roster:
//
//	threshold: 2
//	operators:
//	  - name: anna
//	    key: anna.pub.pem
//
// Paths are relative to the file.
func LoadRoster(path string) (Roster, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Roster{}, err
	}
	var in struct {
		Threshold int `yaml:"threshold"`
		Operators []struct {
			Name string `yaml:"name"`
			Key  string `yaml:"key"`
		} `yaml:"operators"`
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&in); err != nil {
		return Roster{}, fmt.Errorf("parsing %s: %w", path, err)
	}
	r := Roster{Threshold: in.Threshold}
	for _, o := range in.Operators {
		if !filepath.IsAbs(o.Key) {
			o.Key = filepath.Join(filepath.Dir(path), o.Key)
		}
		der, err := readPublicKey(o.Key)
		if err != nil {
			return Roster{}, fmt.Errorf("operator %q: %w", o.Name, err)
		}
		r.Operators = append(r.Operators, Operator{Name: o.Name, Key: der})
	}
	return r, r.Validate()
}

func readPublicKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: want one PEM block PUBLIC KEY", path)
	}
	return block.Bytes, nil
}
