package synchronization

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/region"
)

const (
	// MaxReplicas is how many replica instances a synchronization can have.
	MaxReplicas = 3
	// MaxSelected is how many resources one association can select, so that its row stays
	// well below what the store takes.
	MaxSelected = 10_000
)

// Errors of a change that the rules do not allow.
var (
	// ErrAssociated means that the instance, or its Region, is associated already.
	ErrAssociated = errors.New("associated already")
	// ErrFull means that the synchronization has as many replica instances as it can have.
	ErrFull = errors.New("three replica instances")
	// ErrTooMany means that more resources are selected than one association can select.
	ErrTooMany = errors.New("too many resources selected")
	// ErrNarrower means that the change would take resources away.
	ErrNarrower = errors.New("resources are never taken away")
	// ErrUnknown means that the instance is not associated.
	ErrUnknown = errors.New("not associated")
)

// ID names a synchronization: sync- and twelve hexadecimal digits.
type ID string

var idPattern = regexp.MustCompile(`^sync-[0-9a-f]{12}$`)

// NewID returns a fresh random ID.
func NewID() ID {
	var b [6]byte
	rand.Read(b[:])
	return ID("sync-" + hex.EncodeToString(b[:]))
}

// ParseID checks an ID.
func ParseID(s string) (ID, error) {
	if !idPattern.MatchString(s) {
		return "", fmt.Errorf("synchronization ID %q: want sync- and twelve lower-case hexadecimal digits", s)
	}
	return ID(s), nil
}

// Type says which resources an association carries.
type Type string

// Types of an association.
const (
	AllResources      Type = "ALL_RESOURCES"      // those that are made later, too
	SelectedResources Type = "SELECTED_RESOURCES" // those that were added, which are never taken away
)

// Known reports whether the type is one of the two.
func (t Type) Known() bool { return t == AllResources || t == SelectedResources }

// Stage says how far an association has come.
type Stage string

// Stages of an association.
const (
	Asking     Stage = "ASSOCIATING" // written down here; the replica instance has not confirmed it
	Associated Stage = "ASSOCIATED"

	// Those of an association that was ended follow from its severance, and are not stored.
	Ending Stage = "DISASSOCIATING" // the replica instance has not accepted it, or keys are left that are its members
	Ended  Stage = "DISASSOCIATED"  // the replica instance is frozen
)

// Association is one replica instance of a synchronization.
type Association struct {
	Region        region.Name
	Instance      region.InstanceID
	Type          Type
	Selected      []string // resource IDs in order; empty if all
	Principal     string   // ARN of who made it: it acts under this authority
	CorrelationID string
	Created       time.Time
	Stage         Stage
}

// Covers reports whether the association asks for a resource.
func (a Association) Covers(resource string) bool {
	if a.Type == AllResources {
		return true
	}
	_, found := slices.BinarySearch(a.Selected, resource)
	return found
}

// Synchronization is what the primary instance keeps.
type Synchronization struct {
	ID           ID
	Account      arn.Account // whose resources it is about
	Principal    string      // ARN of who made it
	Created      time.Time
	Associations []Association // in the order in which they were made
}

// Clone returns a copy that can be changed.
func (s *Synchronization) Clone() *Synchronization {
	c := *s
	c.Associations = slices.Clone(s.Associations)
	for i := range c.Associations {
		c.Associations[i].Selected = slices.Clone(c.Associations[i].Selected)
	}
	return &c
}

// Find returns the association with an instance, or nil.
func (s *Synchronization) Find(instance region.InstanceID) *Association {
	i := slices.IndexFunc(s.Associations, func(a Association) bool { return a.Instance == instance })
	if i < 0 {
		return nil
	}
	return &s.Associations[i]
}

// Associate adds a replica instance.
func (s *Synchronization) Associate(a Association) error {
	for _, other := range s.Associations {
		if other.Instance == a.Instance || other.Region == a.Region {
			return fmt.Errorf("%w: instance %s of Region %s", ErrAssociated, other.Instance, other.Region)
		}
	}
	if len(s.Associations) >= MaxReplicas {
		return ErrFull
	}
	selected := a.Selected
	a.Selected = nil
	if err := a.add(selected); err != nil {
		return err
	}
	s.Associations = append(s.Associations, a)
	return nil
}

// Widen adds resources to an association, or makes it one of all resources. An empty type
// leaves the type as it is.
func (s *Synchronization) Widen(instance region.InstanceID, to Type, resources []string) error {
	a := s.Find(instance)
	switch {
	case a == nil:
		return fmt.Errorf("%w: %s", ErrUnknown, instance)
	case to == SelectedResources && a.Type == AllResources:
		return ErrNarrower
	case to == AllResources:
		a.Type, a.Selected = AllResources, nil
	}
	return a.add(resources)
}

// add selects resources. Of all resources each is there already.
func (a *Association) add(resources []string) error {
	if a.Type == AllResources {
		return nil
	}
	all := append(slices.Clone(a.Selected), resources...)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > MaxSelected {
		return ErrTooMany
	}
	a.Selected = all
	return nil
}

// Drop forgets an association that its replica instance has refused.
func (s *Synchronization) Drop(instance region.InstanceID) {
	s.Associations = slices.DeleteFunc(s.Associations, func(a Association) bool { return a.Instance == instance })
}

// Role is what the replica instance keeps: whose replica it is.
type Role struct {
	ID              ID
	Account         arn.Account
	PrimaryRegion   region.Name
	PrimaryInstance region.InstanceID
	Principal       string // who made the association, by the primary instance's word
	Since           time.Time
}
