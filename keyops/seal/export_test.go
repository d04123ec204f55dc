package seal

import "github.com/keyferry/keyferry/keyops/store"

// BucketOf returns the ID of the bucket that covers a row.
func BucketOf(kind store.Kind, id string) string { return bucketID(name{kind, id}.bucket()) }
