package seal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/keyferry/keyferry/keyops/store"
)

// loadParallel is how many seals are checked at once at start: enough to hide the round
// trip to a network HSM, few enough for any session pool.
const loadParallel = 8

// loader fills a Book from the store and collects what does not hold.
type loader struct {
	book     *Book
	findings Findings
	present  map[name]bool
}

func (l *loader) report(kind store.Kind, id string, version uint64, p Problem) {
	l.findings = append(l.findings, Finding{kind, id, version, p})
}

// malformed reports a name that was not written here, made safe to print.
func (l *loader) malformed(row store.Row) {
	kind, id := fmt.Sprintf("%.64q", row.Kind), fmt.Sprintf("%.64q", row.ID)
	l.report(store.Kind(kind), id, row.Version, RowMalformed)
}

func (l *loader) sorted() Findings {
	slices.SortFunc(l.findings, func(a, b Finding) int {
		return name{a.Kind, a.ID}.compare(name{b.Kind, b.ID})
	})
	return l.findings
}

func (l *loader) load(ctx context.Context, tx store.Tx) error {
	kinds, err := tx.Kinds()
	if err != nil {
		return err
	}
	hashes, err := l.loadHead(ctx, tx, kinds)
	if err != nil {
		return err
	}
	if l.book.stopped == nil {
		if err := l.loadBuckets(tx, hashes); err != nil {
			return err
		}
	}
	if err := l.loadRows(ctx, tx, kinds); err != nil {
		return err
	}
	if l.book.stopped == nil {
		l.reportMissing()
	}
	return nil
}

// condemn refuses the whole store.
func (l *loader) condemn(version uint64, p Problem) {
	l.report(store.KindHead, headID, version, p)
	l.book.stopped = &Finding{store.KindHead, headID, version, p}
}

func (l *loader) loadHead(ctx context.Context, tx store.Tx, kinds []store.Kind) (hashes [buckets]hash, err error) {
	row, err := tx.Get(store.KindHead, headID)
	if errors.Is(err, store.ErrNotFound) {
		sealed := func(k store.Kind) bool { return k.Sealed() || k == store.KindBucket }
		if slices.ContainsFunc(kinds, sealed) {
			l.condemn(0, HeadMissing)
		}
		return hashes, nil
	}
	if err != nil {
		return hashes, err
	}
	err = l.book.sealer.Check(ctx, row)
	if errors.Is(err, ErrSeal) {
		l.condemn(row.Version, HeadWrong)
		return hashes, nil
	}
	if err != nil {
		return hashes, err
	}
	version, hashes, err := decodeHead(row.Body)
	if err != nil {
		return hashes, fmt.Errorf("reading the head: %w", err)
	}
	head := l.book.headOf(version, row.Body)
	l.book.head.Store(&head)
	l.book.headRow = row.Version
	return hashes, nil
}

func (l *loader) loadBuckets(tx store.Tx, hashes [buckets]hash) error {
	stored := map[string]store.Row{}
	err := tx.Scan(store.KindBucket, func(row store.Row) error {
		stored[row.ID] = row
		return nil
	})
	if err != nil {
		return err
	}
	for i := range l.book.buckets {
		b := &l.book.buckets[i]
		id := bucketID(uint8(i))
		row, found := stored[id]
		delete(stored, id)
		b.hash, b.version = hashes[i], row.Version
		if !found && b.hash == (hash{}) {
			continue
		}
		got := sha256.Sum256(row.Body)
		if subtle.ConstantTimeCompare(got[:], b.hash[:]) == 1 {
			if b.rows, err = decodeBucket(uint8(i), row.Body); err == nil {
				continue
			}
		}
		b.broken = true
		l.report(store.KindBucket, id, row.Version, BucketWrong)
	}
	for id, row := range stored {
		l.report(store.KindBucket, id, row.Version, RowUnknown)
	}
	return nil
}

// loadRows checks every row's seal, several at once, and its place in its bucket.
func (l *loader) loadRows(ctx context.Context, tx store.Tx, kinds []store.Kind) error {
	l.present = map[name]bool{}
	var mu sync.Mutex // guards l.findings and the entries of the buckets meanwhile
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(loadParallel)
	one := func(row store.Row) error {
		err := l.book.sealer.Check(ctx, row)
		if err != nil && !errors.Is(err, ErrSeal) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if p := l.place(row, err == nil); p != "" {
			l.report(row.Kind, row.ID, row.Version, p)
		}
		return nil
	}
	var err error
	for _, kind := range kinds {
		if !kind.Sealed() {
			continue
		}
		if store.CheckName(kind, "-") != nil {
			l.malformed(store.Row{Kind: kind})
			continue
		}
		err = tx.Scan(kind, func(row store.Row) error {
			if row.Check() != nil {
				mu.Lock()
				defer mu.Unlock()
				l.malformed(row)
				return nil
			}
			l.present[name{row.Kind, row.ID}] = true
			group.Go(func() error { return one(row) })
			return ctx.Err()
		})
		if err != nil {
			break
		}
	}
	// The group's own failure is the cause of ctx's.
	return cmp.Or(group.Wait(), err)
}

// place confirms the row's entry, or says what is wrong with it.
func (l *loader) place(row store.Row, sealed bool) Problem {
	if !sealed {
		return SealWrong
	}
	if l.book.stopped != nil {
		return ""
	}
	n := name{row.Kind, row.ID}
	b := &l.book.buckets[n.bucket()]
	if b.broken {
		return RowUnproven
	}
	i, known := b.find(n)
	if !known {
		return RowUnknown
	}
	e := &b.rows[i]
	if row.Version != e.version || subtle.ConstantTimeCompare(row.Seal, e.seal) != 1 {
		return RowReplaced
	}
	e.digest = sha256.Sum256(l.book.sealer.message(row))
	return ""
}

func (l *loader) reportMissing() {
	for i := range l.book.buckets {
		for _, e := range l.book.buckets[i].rows {
			if !l.present[e.name] {
				l.report(e.kind, e.id, 0, RowMissing)
			}
		}
	}
}
