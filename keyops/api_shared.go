package keyops

// UpdatePrimaryRegionInput names the key, which is the primary key here, and the Region whose
// replica is to become the primary key.
type UpdatePrimaryRegionInput struct {
	KeyID         string
	PrimaryRegion string
}

// UpdatePrimaryRegionOutput has nothing to say: DescribeKey shows both keys Updating until
// the hand-over has ended.
type UpdatePrimaryRegionOutput struct{}
