package audit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/statement"
)

const (
	paris = region.Name("eu-paris-1")
	east  = region.Name("us-east-1")
	tokyo = region.Name("ap-tokyo-1")
)

const sharedKey = "mrk-1234abcd12ab34cd56ef1234567890ab"

var day = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// at is minutes after the begin of the test's day.
func at(minutes int) time.Time { return day.Add(time.Duration(minutes) * time.Minute) }

// regionLog is one Region's log with these records; it begins at minute 0 and ends at end.
func regionLog(t *testing.T, name region.Name, end int, records ...Record) Source {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.cfg.Region, f.cfg.Instance = name, region.InstanceID("kfi-0000000000"+string(name[:2]))
	f.cfg.Signer, f.cfg.Keys = statement.HostKey(key), []crypto.PublicKey{key.Public()}
	now := at(0)
	f.cfg.Now, f.cfg.MaxFileAge = func() time.Time { return now }, 1000*time.Hour
	disk := &faultyFile{}
	l := f.start(disk)
	f.cover(l)
	for _, r := range records {
		if err := l.Append(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	now = at(end)
	f.close(l)
	return Source{name, f.cfg.Instance, fstest.MapFS{fileName(1): {Data: disk.durable()}}, f.cfg.Keys}
}

func keyResource() []Resource { return []Resource{{ARN: "arn", KeyID: sharedKey}} }

func replicate(minute int, outcome Outcome, correlation string, to region.Name) Record {
	r := Record{
		Time: at(minute), Type: APICall, Event: "ReplicateKey", Principal: "ana", Outcome: outcome, RequestID: "request of " + correlation,
		CorrelationID: correlation, Resources: keyResource(), Details: map[string]string{},
	}
	if to != "" {
		r.Details["replicaRegion"] = string(to)
	}
	return r
}

func create(minute int, outcome Outcome, correlation string, from region.Name) Record {
	return Record{
		Time: at(minute), Type: ServiceEvent, Event: "CreateKey", Outcome: outcome, CorrelationID: correlation, Resources: keyResource(),
		Details: map[string]string{"peer": string(from), "claimedPrincipal": "ana"},
	}
}

func carried(minute int, detail, material string, peer region.Name) Record {
	return Record{
		Time: at(minute), Type: ServiceEvent, Event: "SynchronizeMultiRegionKey", Outcome: Success, Resources: keyResource(),
		Details: map[string]string{"peer": string(peer), detail: material},
	}
}

func wrapped(minute int, material string, to region.Name) Record {
	return carried(minute, "wrappedMaterialId", material, to)
}

func installed(minute int, material string, from region.Name) Record {
	return carried(minute, "installedMaterialId", material, from)
}

func TestReconcile(t *testing.T) {
	type logs map[region.Name][]Record
	by := func(r Record, principal string) Record {
		r.Details = maps.Clone(r.Details)
		r.Details["claimedPrincipal"] = principal
		return r
	}
	failed := func(r Record) Record { r.Outcome = Error; return r }
	for _, tc := range []struct {
		name  string
		logs  logs
		agree int
		want  []string // findings
	}{
		{"nothing shared", logs{paris: {record("Encrypt")}, east: {record("Decrypt")}}, 0, nil},
		{
			"a replica and its material", logs{
				paris: {replicate(1, Begun, "c1", ""), replicate(2, Success, "c1", east), wrapped(4, "m1", east)},
				east:  {create(3, Success, "c1", paris), installed(5, "m1", paris)},
			}, 2, nil,
		},
		{
			"a replica that was refused there", logs{
				paris: {replicate(1, Begun, "c1", ""), replicate(2, Success, "c1", east)},
				east:  {create(3, Denied, "c1", paris)},
			}, 1, nil,
		},
		{
			"made, then asked for again", logs{
				paris: {replicate(2, Success, "c1", east)},
				east:  {create(3, Success, "c1", paris), create(4, Error, "c1", paris)},
			}, 1, nil,
		},
		{
			"the source's process died", logs{
				paris: {replicate(1, Begun, "c1", "")},
				east:  {create(3, Success, "c1", paris)},
			}, 1, nil,
		},
		{"refused here", logs{paris: {replicate(1, Error, "c1", east)}, east: nil}, 0, nil},
		{
			"ReplicateKey without CreateKey", logs{paris: {replicate(2, Success, "c1", east)}, east: nil}, 0,
			[]string{"contradiction: replica: eu-paris-1 says ReplicateKey, us-east-1 nothing"},
		},
		{
			"CreateKey of another correlation", logs{paris: {replicate(2, Success, "c1", east)}, east: {create(3, Success, "c2", paris)}}, 0,
			[]string{"contradiction: replica: eu-paris-1 says ReplicateKey, us-east-1 nothing", "contradiction: replica: us-east-1 says CreateKey, eu-paris-1 nothing"},
		},
		{
			"CreateKey without ReplicateKey", logs{paris: nil, east: {create(3, Success, "c1", paris)}}, 0,
			[]string{"contradiction: replica: us-east-1 says CreateKey, eu-paris-1 nothing"},
		},
		{
			"a second replica behind one call", logs{
				paris: {replicate(1, Begun, "c1", ""), replicate(2, Success, "c1", east)},
				east:  {create(3, Success, "c1", paris)},
				tokyo: {create(3, Success, "c1", paris)},
			}, 1,
			[]string{"contradiction: replica: ap-tokyo-1 says CreateKey, eu-paris-1 nothing"},
		},
		{
			"made there though it failed here", logs{
				paris: {replicate(1, Begun, "c1", ""), replicate(2, Error, "c1", east)},
				east:  {create(3, Success, "c1", paris)},
			}, 0,
			[]string{"contradiction: replica: us-east-1 says CreateKey, eu-paris-1 ReplicateKey Error"},
		},
		{
			"another principal claimed", logs{
				paris: {replicate(2, Success, "c1", east)},
				east:  {by(create(3, Success, "c1", paris), "mallory")},
			}, 0,
			[]string{"contradiction: replica: us-east-1 says CreateKey, eu-paris-1 ReplicateKey Success"},
		},
		{
			"material sent that did not arrive", logs{paris: {wrapped(4, "m1", east)}, east: nil}, 0,
			[]string{"contradiction: material: eu-paris-1 says SynchronizeMultiRegionKey, us-east-1 nothing"},
		},
		{
			"material that nobody sent", logs{paris: {wrapped(4, "m1", east)}, east: {installed(5, "m1", paris), installed(6, "m2", paris)}}, 1,
			[]string{"contradiction: material: us-east-1 says SynchronizeMultiRegionKey, eu-paris-1 nothing"},
		},
		{"material that was refused there", logs{paris: {wrapped(4, "m1", east)}, east: {failed(installed(5, "m1", paris))}}, 1, nil},
		{
			"material that another Region brought", logs{
				paris: {wrapped(4, "m1", east)}, tokyo: {wrapped(4, "m1", east)}, east: {installed(5, "m1", tokyo)},
			}, 2, nil,
		},
		{
			"still on its way", logs{paris: {replicate(95, Success, "c1", east), wrapped(96, "m1", east)}, east: nil}, 0,
			[]string{"inFlight: replica: eu-paris-1 says ReplicateKey, us-east-1 nothing", "inFlight: material: eu-paris-1 says SynchronizeMultiRegionKey, us-east-1 nothing"},
		},
		{
			"the source's log ends before", logs{paris: nil, east: {create(95, Success, "c1", paris)}}, 0,
			[]string{"inFlight: replica: us-east-1 says CreateKey, eu-paris-1 nothing"},
		},
		{
			"a Region whose log is not there", logs{paris: {replicate(2, Success, "c1", tokyo)}, east: nil}, 0,
			[]string{"unknown: replica: eu-paris-1 says ReplicateKey, ap-tokyo-1 nothing"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var sources []Source
			for _, name := range []region.Name{tokyo, paris, east} {
				if records, ok := tc.logs[name]; ok {
					sources = append(sources, regionLog(t, name, 100, records...))
				}
			}
			r, err := Reconcile(sources, 10*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Findings {
				instead := "nothing"
				if f.Instead != nil {
					instead = f.Instead.Event + " " + string(f.Instead.Outcome)
				}
				got = append(got, string(f.Status)+": "+string(f.Kind)+": "+string(f.Says.Region)+" says "+f.Says.Event+", "+string(f.Other)+" "+instead)
				if f.KeyID != sharedKey || f.Says.Seq == 0 || f.Says.Time.Before(day) {
					t.Errorf("got finding %+v, want its key and place", f)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || r.Agree != tc.agree {
				t.Errorf("got %d that agree, want %d; findings (-want +got):\n%s", r.Agree, tc.agree, diff)
			}
		})
	}
}

// TestReconcileMovedFiles shows that a log is not blamed for what was moved away from it.
func TestReconcileMovedFiles(t *testing.T) {
	there := regionLog(t, east, 200, create(3, Success, "c1", paris), installed(50, "m1", paris))
	lines := strings.SplitAfter(string(there.FS.(fstest.MapFS)[fileName(1)].Data), "\n")
	there.FS = fstest.MapFS{fileName(2): {Data: []byte(strings.Join(lines[2:], ""))}}
	here := regionLog(t, paris, 200, replicate(2, Success, "c1", east), wrapped(49, "m1", east))
	r, err := Reconcile([]Source{here, there}, 10*time.Minute)
	if err != nil || r.Agree != 1 || len(r.Findings) != 1 || r.Count(Unknown) != 1 {
		t.Errorf("got %+v, error %v, want one exchange that agrees and one that cannot be known", r, err)
	}
}

func TestReconcileRefuses(t *testing.T) {
	here, there := regionLog(t, paris, 1), regionLog(t, east, 1)
	damaged := there
	damaged.FS = fstest.MapFS{fileName(1): {Data: append([]byte("x"), there.FS.(fstest.MapFS)[fileName(1)].Data...)}}
	misnamed := there
	misnamed.Region = tokyo
	otherKey := there
	otherKey.Keys = here.Keys
	for name, tc := range map[string]struct {
		sources []Source
		want    string
	}{
		"one log":        {[]Source{here}, "at least two"},
		"a Region twice": {[]Source{here, here}, "two logs of Region eu-paris-1"},
		"a damaged log":  {[]Source{here, damaged}, "audit-000001.jsonl line 1"},
		"another log":    {[]Source{here, misnamed}, "it is that of instance kfi-0000000000us in us-east-1"},
		"another key":    {[]Source{here, otherKey}, "signature not valid"},
	} {
		if r, err := Reconcile(tc.sources, time.Minute); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %+v, error %v, want an error with %q", name, r, err, tc.want)
		}
	}
}
