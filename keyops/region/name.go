// Package region names Regions and instances, and holds the public descriptor by which
// Regions know each other's signing keys.
package region

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Name is the name of a Region, such as eu-paris-1. AWS clients refuse names that do not
// match the pattern, so ours obey it.
type Name string

var namePattern = regexp.MustCompile(`^([a-z]+-){2,3}[0-9]+$`)

// ParseName checks a Region name: at most 32 characters of the form eu-paris-1.
func ParseName(s string) (Name, error) {
	if len(s) > 32 || !namePattern.MatchString(s) {
		return "", fmt.Errorf("region name %q: want two or three lower-case words and a number, such as eu-paris-1", s)
	}
	return Name(s), nil
}

// InstanceID names one deployment in a Region. A Region that is initialised again is
// another instance, so that messages and pins for the old one do not reach it.
type InstanceID string

var instancePattern = regexp.MustCompile(`^kfi-[0-9a-f]{12}$`)

// NewInstanceID returns a fresh random instance ID.
func NewInstanceID() InstanceID {
	var b [6]byte
	rand.Read(b[:])
	return InstanceID("kfi-" + hex.EncodeToString(b[:]))
}

// ParseInstanceID checks an instance ID: kfi- and twelve hexadecimal digits.
func ParseInstanceID(s string) (InstanceID, error) {
	if !instancePattern.MatchString(s) {
		return "", fmt.Errorf("instance ID %q: want kfi- and twelve lower-case hexadecimal digits", s)
	}
	return InstanceID(s), nil
}
