package audit

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/keyops/statement"
)

// BenchmarkQueue is what a cryptographic call pays for its record. x-bare-encode compares
// it with one JSON encoding of the same record, which the log does after the call.
func BenchmarkQueue(b *testing.B) {
	ctx := context.Background()
	l, err := Open(ctx, Config{
		Dir: b.TempDir(), Region: testRegion, Instance: testInstance, Signer: statement.HostKey(testKey()), Flush: DefaultFlush,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r := record("Encrypt")
	begin := time.Now()
	const encodings = 5000
	for range encodings {
		if _, err := json.Marshal(r); err != nil {
			b.Fatal(err)
		}
	}
	bare := time.Since(begin) / encodings
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%1000 == 999 { // let the disk catch up, off the clock
			b.StopTimer()
			if err := l.wait(ctx, item{flush: true}, true); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := l.Queue(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(bare), "x-bare-encode")
}

// BenchmarkAppend is a management call: it waits for the disk.
func BenchmarkAppend(b *testing.B) {
	l, err := Open(context.Background(), Config{
		Dir: b.TempDir(), Region: testRegion, Instance: testInstance, Signer: statement.HostKey(testKey()), Flush: DefaultFlush,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Append(context.Background(), record("CreateKey")); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkVerify checks a log of a busy hour: records with a checkpoint after each thousand.
func BenchmarkVerify(b *testing.B) {
	ctx := context.Background()
	dir := b.TempDir()
	key := testKey()
	l, err := Open(ctx, Config{Dir: dir, Region: testRegion, Instance: testInstance, Signer: statement.HostKey(key), Flush: DefaultFlush, CheckpointEvery: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	l.store.Store(new(func() StoreHead { return StoreHead{} }))
	const lines = 20_000
	for i := range lines {
		if err := l.Queue(ctx, record("Encrypt")); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			if _, err := l.Checkpoint(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fileName(1)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if r, err := Verify(os.DirFS(dir), keys()); err != nil || r.Records < lines {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(lines/b.Elapsed().Seconds()*float64(b.N), "records/s")
}
