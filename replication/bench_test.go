package replication_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/material"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/replication"
)

// bare are the calls of the token that nothing can do without: of one key that is replicated
// (a wrap, an unwrap) and of one rotation over three Regions (a key, two wraps, two unwraps).
type bare struct {
	source, destination *hsm.Token
	key, transport      hsm.ID // the key that is wrapped, and under what, at the source
	unwraps             hsm.ID // the other end of that, at the destination
	spec                hsm.Spec
}

// bareTokens borrows the tokens of two Regions, and a key of the first.
func bareTokens(b *testing.B, id arn.KeyID, source, destination *site) bare {
	b.Helper()
	k, err := source.region.SharedKey(id)
	if err != nil {
		b.Fatal(err)
	}
	t := bare{source: source.region.Token.(*hsm.Token), destination: destination.region.Token.(*hsm.Token), key: k.Materials[0].Object}
	object, err := t.source.Lookup(b.Context(), t.key)
	if err != nil {
		b.Fatal(err)
	}
	t.spec = object.Spec
	for _, name := range names() {
		if name.Source.Region == source.name() && name.Destination.Region == destination.name() {
			ends := established[name][hsm.ClassAES]
			t.transport, t.unwraps = ends.Source, ends.Destination
		}
	}
	return t
}

// carry wraps at one end and unwraps at the other.
func (t bare) carry(b *testing.B) {
	b.Helper()
	wrapped, err := t.source.Wrap(b.Context(), t.transport, t.key)
	if err != nil {
		b.Fatal(err)
	}
	if err := t.destination.Unwrap(b.Context(), t.unwraps, t.spec, hsm.NewID(), wrapped); err != nil {
		b.Fatal(err)
	}
}

// rotate makes a key and carries it to so many Regions, again and again, and returns what that
// takes once.
func (t bare) rotate(b *testing.B, regions int) time.Duration {
	b.Helper()
	const rounds = 20
	began := time.Now()
	for range rounds {
		if _, err := t.source.Generate(b.Context(), t.spec, hsm.NewID()); err != nil {
			b.Fatal(err)
		}
		for range regions {
			t.carry(b)
		}
	}
	return time.Since(began) / rounds
}

// BenchmarkReplicate fills an empty Region with keys, on real tokens. The time of one key
// must not grow with their number.
func BenchmarkReplicate(b *testing.B) {
	for _, n := range []int{250, 500, 1000} {
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) {
			sites := realSites(b, seldom)
			var took, cpu time.Duration
			var ids []arn.KeyID
			for range b.N {
				b.StopTimer()
				ids = ids[:0]
				for range n {
					ids = append(ids, sites[0].createSymmetric())
				}
				b.StartTimer()
				began, used := time.Now(), processor(b)
				for _, id := range ids {
					sites[0].mustReplicate(id, sites[1])
				}
				for _, id := range ids { // one after the other, so that looking does not cost more the more keys there are
					for sites[0].status(id, sites[1]).Status != replication.StatusSynchronized {
						time.Sleep(2 * time.Millisecond)
					}
				}
				took += time.Since(began)
				cpu += processor(b) - used
			}
			b.StopTimer()
			token := bareTokens(b, ids[0], sites[0], sites[1])
			began := time.Now()
			for range n {
				token.carry(b)
			}
			b.ReportMetric(ms(cpu)/float64(b.N*n), "cpu-ms/key")
			report(b, "key", took/time.Duration(b.N*n), time.Since(began)/time.Duration(n))
		})
	}
}

// BenchmarkRotate is one rotation barrier on loopback, from the call until every Region
// encrypts with the new material. Over three Regions it is on tokens in memory, which cost
// next to nothing: that is what the barrier itself takes, with a goal of 100 ms. Beside it is
// what three tokens would take for it, one key made and carried to two.
func BenchmarkRotate(b *testing.B) {
	b.Run("3 Regions", func(b *testing.B) {
		sites := prepare(b, paris, east, tokyo)
		for _, s := range sites {
			s.config = seldom
			s.start()
		}
		_, took, cpu := rotations(b, sites)
		b.StopTimer()
		real := realSites(b, seldom)
		id := real[0].createSymmetric()
		b.ReportMetric(ms(cpu), "cpu-ms/rotation")
		report(b, "rotation", took, bareTokens(b, id, real[0], real[1]).rotate(b, 2))
	})
	b.Run("2 Regions on SoftHSM", func(b *testing.B) {
		sites := realSites(b, seldom)
		id, took, cpu := rotations(b, sites)
		b.ReportMetric(ms(cpu), "cpu-ms/rotation")
		report(b, "rotation", took, bareTokens(b, id, sites[0], sites[1]).rotate(b, 1))
	})
}

// rotations rotates a key b.N times and returns it and what one rotation took.
func rotations(b *testing.B, sites []*site) (id arn.KeyID, each, cpu time.Duration) {
	b.Helper()
	var took, used time.Duration
	for i := range b.N {
		if i%20 == 0 { // a key is rotated 25 times on demand
			id = sites[0].createSymmetric()
			sites[0].mustReplicate(id, sites[1:]...)
			sites[0].synchronized(id, sites[1:]...)
		}
		before := current(b, id, sites[0])
		began, usedBefore := time.Now(), processor(b)
		if err := sites[0].rotateOnDemand(id); err != nil {
			b.Fatal(err)
		}
		for !turned(b, id, before, sites...) {
			time.Sleep(200 * time.Microsecond)
		}
		took += time.Since(began)
		used += processor(b) - usedBefore
	}
	return id, took / time.Duration(b.N), used / time.Duration(b.N)
}

// processor is what this process has had of the processors, all Regions together. Beside
// other work it says more than the time on the wall.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// seldom keeps digests, which the tests exchange five times in a second, out of the figures.
func seldom(c *replication.Config) { c.DigestInterval = time.Minute }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// turned reports whether every Region encrypts with other material than before.
func turned(b *testing.B, id arn.KeyID, before material.ID, sites ...*site) bool {
	return !slices.ContainsFunc(sites, func(s *site) bool { return current(b, id, s) == before })
}

// current is what a Region encrypts with. It is not asked by DescribeKey, which writes an
// audit record each time.
func current(b *testing.B, id arn.KeyID, s *site) material.ID {
	b.Helper()
	k, err := s.region.SharedKey(id)
	if err != nil {
		b.Fatal(err)
	}
	return k.Current
}

// report prints what one of something costs, and how often the bare token would have done it
// in that time.
func report(b *testing.B, what string, took, bare time.Duration) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(took), "ms/"+what)
	b.ReportMetric(ms(bare), "bare-ms/"+what)
	b.ReportMetric(float64(took)/float64(bare), "times-bare")
}

// BenchmarkDigest is one exchange of digests about keys that have not changed, at both ends:
// the first one after a change, and those that follow. The tokens' part of an exchange is beside
// it, which is not in it: a signature of the question and one of the answer.
func BenchmarkDigest(b *testing.B) {
	token := realSites(b, seldom)[0].region
	const rounds = 20
	began := time.Now()
	for range 2 * rounds {
		if _, err := token.Token.Sign(b.Context(), token.Signing, hsm.RegionScheme, make([]byte, 48)); err != nil {
			b.Fatal(err)
		}
	}
	signatures := time.Since(began) / rounds
	sites := prepare(b, paris, east)
	var ends [2]*replication.Replicator
	for i, s := range sites {
		var err error
		ends[i], err = replication.New(replication.Config{
			Self: s.region.Descriptor.Descriptor, Peers: s.peers(), Listener: closedListener(b), Log: s.log,
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	self := mrk.Self{Region: paris, Instance: sites[0].region.Descriptor.Instance}
	for _, n := range []int{2_500, 5_000, 10_000} {
		keys := newManyKeys(b, self, sites[1], n)
		for _, row := range []struct {
			name    string
			changed uint64
		}{{"after a change", 1}, {"unchanged", 0}} {
			b.Run(fmt.Sprintf("%d keys/%s", n, row.name), func(b *testing.B) {
				size := 0
				for range b.N {
					keys.version += row.changed
					question := ends[0].DigestWith(keys, east)
					answer, err := ends[0].AnswerDigest(keys, east, question)
					if err != nil {
						b.Fatal(err)
					}
					size = len(question) + len(answer)
				}
				b.ReportMetric(float64(size), "bytes/exchange")
				report(b, "exchange", b.Elapsed()/time.Duration(b.N), signatures)
			})
		}
	}
}
